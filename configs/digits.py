"""Each family of models on handwritten digits, in small.

    python -m vit_jax train --config=configs/digits.py:mixer --workdir=runs/digits-mixer

The argument is hybrid (R+ViT-Ti/16, whole), resnet (a root of 32 channels and two stages of one
unit), bit (the same with BiT's order of units), mixer (four blocks of width 64), vit (four blocks
of width 64), axial (the same with a block for rows and one for columns in place of each) or
axial_resnet (resnet with attention in place of its 3x3 convolutions). The digits of 8x8 pixels are
enlarged to what the strides need. `python -m benchmarks.digits_families` runs the first four.

Expected test top-1: hybrid 98.1 %, resnet 98.9 %, bit 99.7 %, mixer 98.1 %, after 2 to 21 minutes
on 2 CPU cores (benchmarks/results/digits_families.md). The last three are for `paper --figure=13`
and have no measured result.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument
from vit_jax.errors import UserError

_ENCODER = {
    **{"image_size": 8, "depth": 4, "width": 64, "mlp_dim": 128, "num_heads": 4},
    "scan": False,
}
_MODELS = {
    "hybrid": {"name": "R+ViT-Ti/16", "image_size": 64},
    "resnet": {"name": "R26x0.5", "image_size": 32, "stages": (1, 1)},
    "bit": {"name": "BiT-R26x0.5", "image_size": 32, "stages": (1, 1)},
    "mixer": {
        "name": "Mixer-S/2",
        "image_size": 8,
        "depth": 4,
        "width": 64,
        "mlp_dim": 128,
        "token_mlp_dim": 32,
        "scan": False,
    },
    "vit": {"name": "ViT-mu/2", **_ENCODER},
    "axial": {"name": "AxialViT-mu/2", **_ENCODER},
    "axial_resnet": {
        "name": "AxialResNet-50",
        "image_size": 32,
        "stages": (1, 1),
        "width_factor": 0.5,
    },
}


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, "model").model
    if chosen not in _MODELS:
        raise UserError(f"no model {chosen!r} here; write one of {', '.join(_MODELS)}")
    return ConfigDict(
        {
            "model": _MODELS[chosen],
            "data": {
                "dataset": "digits",
                "batch_size": 64,
                "workers": 0,
                "crop": "none",
                "flip": False,
                "affine": {"rotate": 15.0, "shift": 0.1, "scale": 0.15},
            },
            "optimizer": {
                "name": "adamw",
                "lr": 2e-3,
                "schedule": "cosine",
                "warmup_steps": 50,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "total_steps": 600,
            "evals": {"test": {"split": "test", "every_steps": 300}},
            "log_every": 100,
        }
    )
