"""Pre-training from scratch, by model and data set.

    python -m vit_jax train --config=configs/pretrain.py:b16,imagenet --workdir=runs/b16
    python -m vit_jax train --config=configs/pretrain.py:ti16,./photos --workdir=runs/photos

imagenet and imagenet21k follow Table 3 of the paper (arXiv 2010.11929): batch 4096, warm-up of
10,000 steps, AdamW whose decay is scaled by the rate. What to expect, from the authors, before
any fine-tuning at 384 pixels: ImageNet top-1 of 74.79 % (B/16), 69.19 % (B/32) and 72.59 % (L/16)
from scratch; ImageNet-21k top-1 of 47.88 % (B/16) and 49.90 % (L/16)
(github.com/google-research/vision_transformer/issues/62).

Any other TFDS data set, or a folder of images, gets a modest recipe for a single machine; folders
are DATA/{train,test}/CLASS/*.jpg, or DATA/CLASS/*.jpg, of which a tenth becomes the test split.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument
from vit_jax.models.config import ModelConfig

# Table 3. The paper clips the gradient in its ImageNet runs only.
_IMAGENET = {
    "data": {"dataset": "imagenet2012", "train": "train[:99%]", "batch_size": 4096},
    "evals": {
        "minival": {"split": "train[99%:]", "every_steps": 5000},
        "val": {"split": "validation", "every_steps": 5000},
    },
    "epochs": 300,
    "optimizer": {"lr": 3e-3, "schedule": "cosine", "weight_decay": 0.3, "clip_norm": 1.0},
    "loss": "sigmoid",
    # -log(1000), with which the mean of the first predictions is that of the classes.
    "model": {"dropout": 0.1, "head_bias": -6.9},
}
_IMAGENET21K = {
    "data": {"dataset": "imagenet21k", "train": "train[51200:]", "batch_size": 4096},
    "evals": {"val": {"split": "train[25600:51200]", "every_steps": 10_000}},
    "epochs": 90,
    "optimizer": {"lr": 1e-3, "schedule": "linear", "weight_decay": 0.03},
    "loss": "sigmoid",
    "model": {"dropout": 0.1, "head_bias": -10.0},
}
_RECIPES = {"imagenet": _IMAGENET, "imagenet21k": _IMAGENET21K}


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, "model", "data")
    recipe = _RECIPES.get(chosen.data, _single_machine(chosen.data))
    config = ConfigDict(
        {
            "model": {"name": chosen.model, "image_size": 224, "dtype": "bfloat16"},
            "data": {"workers": 8},
            "optimizer": {"name": "adamw", "warmup_steps": 10_000},
            "checkpoint": {"every_steps": 1000},
        }
    )
    config.update(recipe)
    model = ModelConfig(chosen.model)
    if model.family not in ("vit", "hybrid"):
        del config.model.dropout
    elif chosen.data in _RECIPES:
        # The paper pre-trains with a hidden tanh layer before the head, as wide as the encoder.
        config.model.representation_size = model.size.width
    return config


def _single_machine(dataset: str) -> dict:
    return {
        "data": {"dataset": dataset, "train": "train", "batch_size": 128, "workers": 2},
        "evals": {"test": {"split": "test", "every_steps": 1000}},
        "total_steps": 10_000,
        "optimizer": {
            "lr": 1e-3,
            "schedule": "cosine",
            "warmup_steps": 500,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
        },
        "model": {"dropout": 0.1},
    }
