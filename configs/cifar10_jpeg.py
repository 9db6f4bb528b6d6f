"""A ViT from scratch on CIFAR-10 as a folder of JPEGs, with more and less augmentation.

    python -m vit_jax train --config=configs/cifar10_jpeg.py:FOLDER,crops --workdir=runs/crops

FOLDER is DIR/{train,test}/CLASS/*.jpg. The second value is none; crops, which is random crops and
flips; or a level of "How to train your ViT?" (light1, light2, medium1, medium2, strong1, strong2):
these and RandAugment and Mixup. A third one, budget=gpu, is a run of hours for one GPU instead.

Expected on 2 CPU cores: see benchmarks/results/cifar10_jpeg.md. The GPU's recipe has not been run.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument
from vit_jax.data.augreg import AUGREG
from vit_jax.errors import UserError

# A small ViT for a quarter of an hour on two cores, and S/4 for 300 epochs on a GPU.
_BUDGETS = {
    "cpu": {
        "model": {
            "name": "ViT-mu/4",
            "depth": 4,
            "width": 128,
            "mlp_dim": 256,
            "num_heads": 4,
            "scan": False,
        },
        "data": {"batch_size": 128, "workers": 0},
        "optimizer": {"lr": 2e-3, "warmup_steps": 200, "weight_decay": 0.05},
        "total_steps": 3000,
        "evals": {"test": {"split": "test", "every_steps": 500}},
        "checkpoint": {"every_steps": 500},
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
    if chosen.augmentation not in ("crops", *AUGREG):
        known = ", ".join(("crops", *AUGREG))
        raise UserError(f"no augmentation {chosen.augmentation!r} here; write one of {known}")
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
    if chosen.augmentation != "none":
        # The paper's smallest share of 0.05 leaves 7 of 32 pixels.
        config.data.update({"crop": "inception", "crop_area": (0.4, 1.0), "flip": True})
    if chosen.augmentation in AUGREG and chosen.augmentation != "none":
        layers, magnitude, mixup = AUGREG[chosen.augmentation]
        config.data.randaugment = {"layers": layers, "magnitude": magnitude}
        config.data.mixup = mixup
    return config
