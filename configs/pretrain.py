"""Pre-training from scratch, by model and data set.

    python -m vit_jax train --config=configs/pretrain.py:b16,imagenet --workdir=runs/b16
    python -m vit_jax train --config=configs/pretrain.py:ti16,./photos --workdir=runs/photos
    python -m vit_jax train --config=configs/pretrain.py:R50+ViT-B/16,DATA,recipe=jft --workdir=DIR

imagenet and imagenet21k follow Table 3 of the paper (arXiv 2010.11929): batch 4096, warm-up of
10,000 steps, AdamW whose decay is scaled by the rate. What to expect, from the authors, before
any fine-tuning at 384 pixels: ImageNet top-1 of 74.79 % (B/16), 69.19 % (B/32) and 72.59 % (L/16)
from scratch; ImageNet-21k top-1 of 47.88 % (B/16) and 49.90 % (L/16)
(github.com/google-research/vision_transformer/issues/62).

recipe=jft takes epochs, rate and decay of the table's rows for JFT-300M, which is private, to a
large data set of your own: those of ViT-B/16, B/32, L/16, L/32, H/14, of R50x1, R50x2, R101x1,
R152x1, R152x2 (BiT-R50x1 and so on too) and of R50+ViT-B/16, B/32, L/16, L/32.

Any other TFDS data set, or a folder of images, gets a modest recipe for a single machine; folders
are DATA/{train,test}/CLASS/*.jpg, or DATA/CLASS/*.jpg, of which a tenth becomes the test split.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument
from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.sizes import parse_name

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
# JFT-300M: epochs and rate of each model; L/16 and R50+L/16 were trained for 14 epochs too.
_JFT = {
    **dict.fromkeys(("ViT-B/32", "ViT-B/16"), (7, 8e-4)),
    **{"ViT-L/32": (7, 6e-4), "ViT-L/16": (7, 4e-4), "ViT-H/14": (14, 3e-4)},
    **dict.fromkeys(("R50x1", "R50x2"), (7, 1e-3)),
    **{"R101x1": (7, 8e-4), "R152x1": (7, 6e-4), "R152x2": (7, 6e-4)},
    **dict.fromkeys(("R50+ViT-B/32", "R50+ViT-B/16"), (7, 8e-4)),
    **{"R50+ViT-L/32": (7, 2e-4), "R50+ViT-L/16": (7, 4e-4)},
}


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, "model", "data", recipe=None)
    if chosen.recipe not in (None, "jft"):
        raise UserError(f"no recipe {chosen.recipe!r}; the data set chooses it, or recipe=jft")
    recipe = _RECIPES.get(chosen.data, _single_machine(chosen.data))
    if chosen.recipe == "jft":
        recipe = _jft(chosen.model, chosen.data)
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
        if "dropout" in config.model:
            del config.model.dropout
    elif chosen.data in _RECIPES or chosen.recipe == "jft":
        # The paper pre-trains with a hidden tanh layer before the head, as wide as the encoder.
        config.model.representation_size = model.size.width
    return config


def _jft(model: str, dataset: str) -> dict:
    # Whether the paper's ResNets had BiT's order of units, it does not say.
    named = {parse_name(name): row for name, row in _JFT.items()}
    name = parse_name(model)._replace(order="post")
    if name not in named:
        raise UserError(f"Table 3 has no row for {model} on JFT-300M; it has {', '.join(_JFT)}")
    epochs, lr = named[name]
    return {
        "data": {"dataset": dataset, "train": "train", "batch_size": 4096},
        "evals": {"test": {"split": "test", "every_steps": 10_000}},
        "epochs": epochs,
        "optimizer": {"lr": lr, "schedule": "linear", "weight_decay": 0.1},
        "loss": "sigmoid",
        "model": {"head_bias": -10.0},
    }


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
