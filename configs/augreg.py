"""AugReg: pre-training and fine-tuning of "How to train your ViT?" (arXiv 2106.10270).

    python -m vit_jax train --config=configs/augreg.py:B_16,imagenet,aug=medium2 --workdir=runs/B_16
    python -m vit_jax train --config=configs/augreg.py:B_16,pets --workdir=runs/B_16-pets
    python -m vit_jax train --config=configs/augreg.py:S_16,./photos,size=224,lr=0.01 \\
        --workdir=runs/S_16-photos

Pre-training is what aug= asks for: none, light1, light2, medium1, medium2, strong1 or strong2,
which are layers and magnitude of RandAugment and the ratio of Mixup (analysis/augreg_levels.py).
These are the paper's names; those of the released files count the light levels from 0, and have, by
the order of the two lists, light0 and light1 for light1 and light2. The data is imagenet,
imagenet21k (see configs/pretrain.py), or any other, to which ImageNet's recipe applies. The model
is one of Ti_16, S_16, S_32, B_16, B_32, L_16, R_Ti_16, R26_S_32 and R50_L_32.

Adam, batch 4096 (--config.optimizer.micro_batches=16 for less memory), rate 1e-3 with cosine decay
and 10,000 steps of warm-up, clipped at norm 1, crops and flips at 224 pixels, 300 epochs (of
ImageNet-21k also --config.epochs=30). Each model's sweep has the seven levels, weight_decay=0.1 and
0.03, and dropout=0.0 and 0.1, which is dropout and stochastic depth at once. Defaults: 0.1 and 0.0.
From the authors' code (big_vision, configs/vit_i1k.py and vit_i21k.py): sigmoid loss with head bias
-6.9 on 1,000 classes and -10 on 21,843, decay of kernels alone, first moment in bfloat16,
evaluation on the centre of the image at short side 256, and these levels:

    ImageNet        light1 for Ti/16; medium1 for S/32; medium2 for S/16, B/32, B/16, L/16
    ImageNet-21k    none for Ti/16, S/32; light1 for S/16; light2 for B/32, B/16; medium2 for L/16

Where big_vision's files differ from the released weights, these are followed: the head has no
hidden layer, which big_vision's vit_i1k.py has (--config.model.representation_size=768 for B; on
ImageNet the authors tried both), and sees the class token, where its vit_i21k.py takes the mean
over patches (--config.model.pooling=gap). big_vision resizes for evaluation by area; here it is
bilinear without antialiasing, as the crops in training are there, too. At the usual size of
ImageNet's images that is nearer to area than bilinear with antialiasing, which would reach the
training crops as well (--config.model.preprocessing.antialias=True).

The published results are those of RandAugment with the original's faults, which are on here
(vit_jax/data/images/randaugment.py); --config.data.randaugment.original_faults=False mends them.

Expected top-1 on ImageNet at 224 pixels, from scratch, the best of the sweep (Table 3): L/16 75.72,
B/16 79.84, S/16 79.00, B/32 74.42, S/32 72.07, Ti/16 72.59, R50+L/32 76.84, R26+S/32 79.61,
R+Ti/16 70.13; about 79 with big_vision's B/16 (its issue 7), which is the first command above with
the hidden layer. Times are not known here.

Fine-tuning: the first value is a model (B_8 too), which stands for its best file pre-trained on
ImageNet-21k; or a file by its full name, such as
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

Its fourth data set, Kitti, is not one of labelled images. Of its choices for imagenet, the default
is that of Table 3's files: 0.01 for S/32, B/32, L/16, R26+S/32 and R50+L/32, 0.03 for Ti/16, S/16,
B/16 and R+Ti/16, and here for all others. Of the other choices, and for cifar10 and flowers, it is
what big_vision's configs/transfer.py takes for B/32 from these checkpoints; for resisc45 and all
other data it is 2,500 steps and a rate in the middle. Others are set by lr=, --config.total_steps
and --config.optimizer.warmup_steps. Momentum in bfloat16: the authors' code. Resisc45 has no split;
its last fifth is the test set, as in VTAB.

Expected top-1 in percent. ImageNet at 384 pixels (Table 3, files and rates chosen as here): Ti/16
78.22, S/32 79.58, S/16 83.73, B/32 83.59, B/16 85.49, L/16 85.59, R+Ti/16 75.40, R26+S/32 83.85,
R50+L/32 85.99. B/32 on the other sets, from big_vision's file, whose crops differ: CIFAR-10 98.55,
CIFAR-100 91.35, Pets 93.78, Flowers 99.43.
"""

import re
from pathlib import Path
from types import SimpleNamespace

from ml_collections import ConfigDict

from vit_jax.analysis.augreg_levels import AUGREG, AugRegLevel
from vit_jax.analysis.published import CHOSEN_RATES, TABLE_4, WARMUP_STEPS
from vit_jax.config import parse_argument
from vit_jax.data.sources.published import named
from vit_jax.errors import UserError
from vit_jax.spelling import nearest
from vit_jax.weights.catalogue.augreg import MODELS, rate_on_imagenet


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(
        argument,
        "weights",
        **dict.fromkeys(("data", "size", "lr", "model", "aug", "weight_decay", "dropout")),
    )
    if chosen.aug is None:
        _refuse(
            chosen,
            *("weight_decay", "dropout"),
            because="it is of pre-training, which aug=LEVEL asks for; add that, or leave it out",
        )
        return _fine_tuning(chosen)
    _refuse(
        chosen,
        *("size", "lr", "model"),
        because="it is of fine-tuning, and aug= asks for pre-training; leave it out",
    )
    return _pretraining(chosen)


def _refuse(chosen: SimpleNamespace, *names: str, because: str) -> None:
    for name in names:
        if getattr(chosen, name) is not None:
            raise UserError(f"{name}= would be ignored: {because}")


def _pretraining(chosen: SimpleNamespace) -> ConfigDict:
    level = _level(chosen.aug)
    if chosen.weights not in MODELS:
        raise UserError(
            f"{chosen.weights!r} is no model of AugReg's{nearest(chosen.weights, MODELS)}"
        )
    if chosen.data is None:
        raise UserError(
            "aug= asks for pre-training, which needs data after the model, such as "
            f"{chosen.weights},imagenet,aug={chosen.aug}; without aug= it is fine-tuning"
        )
    dataset = named(chosen.data)
    dropout = float(chosen.dropout or 0)
    config = ConfigDict(
        {
            "model": {
                "name": _model_of(chosen.weights),
                "image_size": 224,
                "head_bias": -10.0 if chosen.data == "imagenet21k" else -6.9,
                "dropout": dropout,
                "stochastic_depth": dropout,
                "dtype": "bfloat16",
                "preprocessing": {"resize": "short_side", "short_side": 256},
            },
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.pretrain,
                "batch_size": 4096,
                "workers": 8,
                "mixup": level.mixup,
            },
            "optimizer": {
                "name": "adamw",
                "lr": 1e-3,
                "schedule": "cosine",
                "warmup_steps": 10_000,
                "weight_decay": float(chosen.weight_decay or 0.1),
                "clip_norm": 1.0,
                "momentum_dtype": "bfloat16",
            },
            "loss": "sigmoid",
            "epochs": 300,
            "evals": {
                name: {"split": split, "every_steps": 5000}
                for name, split in dataset.held_out.items()
            },
            "checkpoint": {"every_steps": 1000},
        }
    )
    if config.optimizer.weight_decay:
        config.optimizer.decay_mask = "kernels"
    if level.layers:
        config.data.randaugment = {
            "layers": level.layers,
            "magnitude": level.magnitude,
            "original_faults": True,
        }
    return config


def _level(name: str) -> AugRegLevel:
    if name == "light0":
        raise UserError(
            "aug=light0 is a name of AugReg's files, which count the light levels from 0; write "
            "aug=light1, as the paper names it"
        )
    if name not in AUGREG:
        raise UserError(f"aug={name} is no level of AugReg's{nearest(name, AUGREG)}")
    return AUGREG[name]


def _fine_tuning(chosen: SimpleNamespace) -> ConfigDict:
    data, model = chosen.data or "pets", chosen.model or _model_of(chosen.weights)
    dataset = named(data)
    steps = TABLE_4.get(data, TABLE_4["vtab"]).steps
    is_path = "/" in chosen.weights or Path(chosen.weights).exists()
    return ConfigDict(
        {
            "init_from": chosen.weights if is_path else f"augreg/{chosen.weights}",
            "model": {
                "name": model,
                "image_size": int(chosen.size or 384),
                "dtype": "bfloat16",
            },
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.train,
                "batch_size": 512,
                "workers": 8,
            },
            "optimizer": {
                "name": "sgd",
                "lr": float(chosen.lr or _rate(data, model)),
                "schedule": "cosine",
                "warmup_steps": WARMUP_STEPS[steps],
                "momentum": 0.9,
                "momentum_dtype": "bfloat16",
                "clip_norm": 1.0,
            },
            "total_steps": steps,
            "evals": {"test": {"split": dataset.test, "every_steps": max(100, steps // 20)}},
            "checkpoint": {"every_steps": 500},
        }
    )


def _rate(data: str, model: str) -> float:
    rate = rate_on_imagenet(model) if data == "imagenet" else None
    return rate or CHOSEN_RATES.get(data, 0.003)


def _model_of(weights: str) -> str:
    """`R50+ViT-L/32` of R50_L_32-i21k-…, as AugReg's files are named."""
    match = re.match(r"(?:(R\d*)_)?(Ti|S|B|L)_(\d+)\b", Path(weights).name)
    if match is None:
        raise UserError(
            f"{weights!r} does not begin with a model, such as B_16; add model=B_16 to the argument"
        )
    stem, size, patch = match.groups()
    return f"{stem}+ViT-{size}/{patch}" if stem else f"ViT-{size}/{patch}"
