"""Fine-tuning of the checkpoints of "How to train your ViT?" (AugReg, arXiv 2106.10270).

    python -m vit_jax train --config=configs/augreg.py:B_16,pets --workdir=runs/B_16-pets
    python -m vit_jax train --config=configs/augreg.py:S_16,./photos,size=224,lr=0.01 \\
        --workdir=runs/S_16-photos

The first value is a model (Ti_16, S_16, S_32, B_8, B_16, B_32, L_16), which stands for its best
file pre-trained on ImageNet-21k; or a file by its full name, such as
B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0; or a weight file or the directory of a
run that has ended, by path. The model is what that name begins with; where it begins otherwise,
model=B_16 says it.

The second value is imagenet, cifar10, cifar100, pets, flowers or resisc45, any other TFDS name, or
a folder of images as in configs/pretrain.py; pets if there is none.

The recipe is Table 4 of that paper: SGD with momentum 0.9, batch 512, cosine decay, gradients
clipped at norm 1, no regularisation, 384 pixels (size=224 is its other resolution), and

    imagenet              rate of 0.01, 0.03           20,000 steps, 500 of warm-up
    pets                  rate of 0.001, 0.003, 0.01   500, 100 of warm-up; or 2,500, 200
    cifar100, resisc45    rate of 0.001, 0.003, 0.01   2,500, 200 of warm-up; or 10,000, 500

Its fourth data set, Kitti, is not one of labelled images. Of its choices, and for cifar10 and
flowers, the default is what big_vision's configs/transfer.py takes for B/32 from these checkpoints;
for resisc45 and all other data it is 2,500 steps and a rate in the middle. Others are set by lr=,
--config.total_steps and --config.optimizer.warmup_steps. Momentum in bfloat16: the authors' code.
Resisc45 has no split; its last fifth is the test set, as in VTAB.

Expected top-1 in percent. ImageNet at 384 pixels (Table 3, files chosen as here): Ti/16 78.22, S/32
79.58, S/16 83.73, B/32 83.59, B/16 85.49, L/16 85.59. B/32 on the other sets, from big_vision's
file, whose crops differ: CIFAR-10 98.55, CIFAR-100 91.35, Pets 93.78, Flowers 99.43.
"""

import re
from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import parse_argument
from vit_jax.errors import UserError

# TFDS name, training and test split, steps, warm-up, base rate.
_DATA = {
    "imagenet": ("imagenet2012", "train", "validation", 20_000, 500, 0.03),
    "cifar10": ("cifar10", "train", "test", 10_000, 500, 0.003),
    "cifar100": ("cifar100", "train", "test", 10_000, 500, 0.01),
    "pets": ("oxford_iiit_pet", "train", "test", 500, 100, 0.003),
    "flowers": ("oxford_flowers102", "train", "test", 500, 100, 0.003),
    "resisc45": ("resisc45", "train[:80%]", "train[80%:]", 2500, 200, 0.003),
}


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, "weights", data="pets", size="384", lr=None, model=None)
    dataset, train, test, steps, warmup, lr = _DATA.get(
        chosen.data, (chosen.data, "train", "test", 2500, 200, 0.003)
    )
    is_path = "/" in chosen.weights or Path(chosen.weights).exists()
    return ConfigDict(
        {
            "init_from": chosen.weights if is_path else f"augreg/{chosen.weights}",
            "model": {
                "name": chosen.model or _model_of(chosen.weights),
                "image_size": int(chosen.size),
                "dtype": "bfloat16",
            },
            "data": {"dataset": dataset, "train": train, "batch_size": 512, "workers": 8},
            "optimizer": {
                "name": "sgd",
                "lr": float(chosen.lr or lr),
                "schedule": "cosine",
                "warmup_steps": warmup,
                "momentum": 0.9,
                "momentum_dtype": "bfloat16",
                "clip_norm": 1.0,
            },
            "total_steps": steps,
            "evals": {"test": {"split": test, "every_steps": max(100, steps // 20)}},
            "checkpoint": {"every_steps": 500},
        }
    )


def _model_of(weights: str) -> str:
    """`R50+ViT-L/32` of R50_L_32-i21k-…, as AugReg's files are named."""
    match = re.match(r"(?:(R\d*)_)?(Ti|S|B|L)_(\d+)\b", Path(weights).name)
    if match is None:
        raise UserError(
            f"{weights!r} does not begin with a model, such as B_16; add model=B_16 to the argument"
        )
    stem, size, patch = match.groups()
    return f"{stem}+ViT-{size}/{patch}" if stem else f"ViT-{size}/{patch}"
