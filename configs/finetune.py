"""Fine-tuning of pre-trained weights, by model and data set: Table 4 of the paper.

    python -m vit_jax train --config=configs/finetune.py:b16,cifar10,weights=WEIGHTS \\
        --workdir=runs/b16-cifar10
    python -m vit_jax train --config=configs/finetune.py:b16,./photos,weights=WEIGHTS,lr=0.003 \\
        --workdir=runs/b16-photos
    python -m vit_jax train --workdir=runs/l16-512 \\
        --config=configs/finetune.py:l16,imagenet,size=512,average=0.9999,weights=WEIGHTS

WEIGHTS is a weight file, a finished run's directory, or the name of a released file. The data is
imagenet, cifar10, cifar100, pets or flowers, any other TFDS name, or a folder of images.

SGD with momentum 0.9, batch 512, cosine decay, no weight decay, clipped at norm 1, 384 pixels
(arXiv 2010.11929, Table 4). lr= replaces the default rate. The third command is Table 2's.

Hardware: eight V100 GPUs took 7.2 h for B/16 on CIFAR-10 and 17.9 h on ImageNet with the paper's
code, its batch split as by --config.optimizer.micro_batches=16 (its README of November 2020).

Expected test top-1 in percent, pre-trained on ImageNet-21k (Table 5):

                     B/16    B/32    L/16    L/32    H/14
    ImageNet         83.97   81.28   85.15   80.99   85.13
    CIFAR-10         98.95   98.79   99.16   99.13   99.27
    CIFAR-100        91.67   91.97   93.44   93.04   93.82
    Pets             94.43   93.02   94.73   93.09   94.82
    Flowers          99.38   99.11   99.61   99.19   99.51

docs/recipes.md has the steps and rates of each data set, their sources, and Table 2's results.
"""

from ml_collections import ConfigDict, config_dict

from vit_jax.analysis.published.augreg import WARMUP_STEPS
from vit_jax.analysis.published.recipes import CHOSEN_RATES, TABLE_4
from vit_jax.config import parse_argument
from vit_jax.data.sources.published import named


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(
        argument, "model", "data", size="384", lr=None, weights=None, average=None
    )
    dataset = named(chosen.data)
    steps, rates = TABLE_4.get(chosen.data, TABLE_4["vtab"])
    config = ConfigDict(
        {
            "init_from": config_dict.required_placeholder(str),
            "model": {"name": chosen.model, "image_size": int(chosen.size), "dtype": "bfloat16"},
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.train,
                "batch_size": 512,
                "workers": 8,
            },
            "optimizer": {
                "name": "sgd",
                "lr": float(chosen.lr or CHOSEN_RATES.get(chosen.data, rates[0])),
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
    if chosen.weights is not None:
        config.init_from = chosen.weights
    if chosen.average is not None:
        config.optimizer.average = float(chosen.average)
    return config
