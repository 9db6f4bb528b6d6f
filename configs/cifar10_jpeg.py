"""A ViT from scratch on CIFAR-10 as a folder of JPEGs, with more and less augmentation.

    python -m vit_jax train --config=configs/cifar10_jpeg.py:./data/cifar10_jpeg,crops \\
        --workdir=runs/cifar10_jpeg

The folder is DIR/{train,test}/CLASS/*.jpg. The second value is plain (no augmentation), crops
(crops and flips), or one of AugReg's levels (light1, light2, medium1, medium2, strong1, strong2),
which add RandAugment and Mixup to these. budget=gpu is S/4 for 300 epochs; it has not been run yet.

Expected test top-1 after 4,000 steps, a quarter of an hour on 2 CPU cores: 60.9 % plain, 54.8 %
with crops, 43.3 % with light2 (benchmarks/results/cifar10_jpeg.md). In five epochs augmentation
costs accuracy.
"""

from ml_collections import ConfigDict

from vit_jax.analysis.published.augreg import AUGREG
from vit_jax.config import parse_argument
from vit_jax.errors import UserError
from vit_jax.spelling import nearest

_LEVELS = ("plain", "crops", *(level for level in AUGREG if level != "none"))
_BUDGETS = {
    "cpu": {
        "model": {
            "name": "ViT-Ti/4",
            "depth": 3,
            "width": 128,
            "mlp_dim": 256,
            "num_heads": 4,
            "scan": False,
        },
        "data": {"batch_size": 64, "workers": 0},
        "optimizer": {"lr": 1.5e-3, "warmup_steps": 200, "weight_decay": 0.05},
        "total_steps": 4000,
        "evals": {"test": {"split": "test", "every_steps": 1000}},
        "checkpoint": {"every_steps": 1000},
        "log_every": 100,
    },
    "gpu": {
        "model": {"name": "ViT-S/4", "dtype": "bfloat16", "stochastic_depth": 0.1},
        "data": {"batch_size": 512, "workers": 12},
        "optimizer": {"lr": 1e-3, "warmup_steps": 1000, "weight_decay": 0.1, "average": 0.999},
        "epochs": 300,
        "evals": {"test": {"split": "test", "every_steps": 2000}},
        "checkpoint": {"every_steps": 2000},
        "log_every": 100,
    },
}


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, "folder", "augmentation", budget="cpu")
    if chosen.augmentation not in _LEVELS:
        raise UserError(
            f"no augmentation {chosen.augmentation!r}{nearest(chosen.augmentation, _LEVELS)}"
        )
    if chosen.budget not in _BUDGETS:
        raise UserError(f"no budget {chosen.budget!r}; write cpu or gpu")
    config = ConfigDict(
        {
            "model": {"image_size": 32, "pooling": "gap"},
            "data": {"dataset": chosen.folder, "crop": "none", "flip": False},
            "optimizer": {"name": "adamw", "schedule": "cosine", "clip_norm": 1.0},
        }
    )
    config.update(_BUDGETS[chosen.budget])
    if chosen.augmentation != "plain":
        # The paper's smallest share of 0.05 leaves 7 of 32 pixels.
        config.data.update({"crop": "inception", "crop_area": (0.4, 1.0), "flip": True})
    if chosen.augmentation in AUGREG:
        level = AUGREG[chosen.augmentation]
        config.data.randaugment = {"layers": level.layers, "magnitude": level.magnitude}
        config.data.mixup = level.mixup
    return config
