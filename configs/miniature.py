"""One model of the paper in miniature: a small ViT, a hybrid or a ResNet of about equal cost.

    python -m vit_jax train --config=configs/miniature.py:./data/cifar10_jpeg,vit \\
        --workdir=runs/miniature_vit
    python -m vit_jax miniature --data=./data/cifar10_jpeg --workdir=runs/miniature

The argument is DATA,MODEL: digits or a folder of images of 32x32 pixels in train and test; vit,
hybrid or resnet. `miniature` trains all of them, several seeds and variants each (docs/studies.md).

At 32 pixels a ViT has 28.7 million multiply-adds, the hybrid 29.7 and the ResNet 26.9; their steps
make up for the difference.
"""

from ml_collections import ConfigDict

import vit_jax.experiments.miniature.shuffled  # noqa: F401  It registers shuffled_patches:…
from vit_jax.config import parse_argument
from vit_jax.errors import UserError
from vit_jax.spelling import nearest

_ENCODER: dict[str, object] = {
    "width": 128,
    "mlp_dim": 256,
    "num_heads": 4,
    "pooling": "gap",
    "scan": False,
}
_SIZES = {"digits": (8, 2), "folder": (32, 4)}


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, "data", "model")
    side, patch = _SIZES["digits" if chosen.data == "digits" else "folder"]
    models: dict[str, dict[str, object]] = {
        "vit": {"name": f"ViT-Ti/{patch}", "depth": 3, **_ENCODER},
        # The root of a ResNet has a stride of 4, so the ViT takes each of its positions.
        "hybrid": {
            "name": "R+ViT-Ti/2",
            "stages": (),
            "width_factor": 0.5,
            "depth": 3,
            **_ENCODER,
        },
        "resnet": {"name": "R26x1", "stages": (1, 1, 1, 1)},
    }
    if chosen.model not in models:
        raise UserError(
            f"no model {chosen.model!r}; write one of {', '.join(models)}"
            f"{nearest(chosen.model, models)}"
        )
    return ConfigDict(
        {
            "model": {"image_size": side, **models[chosen.model]},
            "data": {
                "dataset": chosen.data,
                "batch_size": 64,
                "workers": 0,
                "crop": "none",
                "flip": False,
            },
            "optimizer": {
                "name": "adamw",
                "lr": 1.5e-3,
                "schedule": "cosine",
                "warmup_steps": 100,
                "weight_decay": 0.05,
                "clip_norm": 1.0,
            },
            "total_steps": 700,
            "evals": {
                "test": {"split": "test"},
                "few": {
                    "kind": "few_shot",
                    "train_split": "train[:2000]" if side == 32 else "train",
                    "split": "test[:2000]" if side == 32 else "test",
                    "shots": (10,),
                },
            },
            "checkpoint": {"every_steps": 350, "keep": 1},
            "log_every": 50,
        }
    )
