"""Fine-tuning of pre-trained weights, by model and data set.

    python -m vit_jax train --config=configs/finetune.py:b16,cifar10 --workdir=runs/b16-cifar10 \\
        --config.init_from=WEIGHTS

WEIGHTS is a .npz file with Google's names, or the directory of a run that has ended; DATA is one
of the names below, any other TFDS name, or a folder of images as in configs/pretrain.py. The
recipe is Table 4 of the paper (arXiv 2010.11929): SGD with momentum 0.9, batch 512, cosine decay,
no weight decay, gradients clipped at norm 1, 384 pixels. The paper chooses the rate from a grid on
a held-out part of the training set; here stands the grid's second value, and
--config.optimizer.lr sets another. Warm-up of 500 steps and momentum in bfloat16: the paper's code.

What to expect of B/16 pre-trained on ImageNet-21k, from Table 5: CIFAR-10 98.95 %, CIFAR-100
91.67 %, ImageNet 83.97 %, Pets 94.43 %, Flowers 99.38 %.
"""

from ml_collections import ConfigDict, config_dict

from vit_jax.config import parse_argument

# Table 4: TFDS name, training and test split, steps, warm-up, base rate.
_DATA = {
    "imagenet": ("imagenet2012", "train", "validation", 20_000, 500, 0.01),
    "cifar10": ("cifar10", "train", "test", 10_000, 500, 0.003),
    "cifar100": ("cifar100", "train", "test", 10_000, 500, 0.003),
    "pets": ("oxford_iiit_pet", "train", "test", 500, 100, 0.003),
    "flowers": ("oxford_flowers102", "train", "test", 500, 100, 0.003),
}


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, "model", "data")
    dataset, train, test, steps, warmup, lr = _DATA.get(
        chosen.data, (chosen.data, "train", "test", 2500, 200, 0.003)
    )
    return ConfigDict(
        {
            "init_from": config_dict.required_placeholder(str),
            "model": {"name": chosen.model, "image_size": 384, "dtype": "bfloat16"},
            "data": {"dataset": dataset, "train": train, "batch_size": 512, "workers": 8},
            "optimizer": {
                "name": "sgd",
                "lr": lr,
                "schedule": "cosine",
                "warmup_steps": warmup,
                "momentum": 0.9,
                "momentum_dtype": "bfloat16",
                "clip_norm": 1.0,
            },
            "total_steps": steps,
            "evals": {"test": {"split": test, "every_steps": 500}},
            "checkpoint": {"every_steps": 500},
        }
    )
