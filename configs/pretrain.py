"""Pre-training from scratch, by model and data set: Table 3 of the paper (arXiv 2010.11929).

    python -m vit_jax train --config=configs/pretrain.py:b16,imagenet --workdir=runs/b16
    python -m vit_jax train --config=configs/pretrain.py:l16,./images,recipe=imagenet21k \\
        --workdir=runs/l16
    python -m vit_jax train --config=configs/pretrain.py:ti16,./photos --workdir=runs/photos
    python -m vit_jax describe --config=configs/pretrain.py:h14,jft

The argument is MODEL,DATA. imagenet, imagenet21k and jft take the rows of the table; recipe=NAME
gives those rows to other data, a TFDS name or a folder. Other data without recipe= gets a modest
recipe for a single machine. weight_decay=, dropout= and label_smoothing= change the regularisation
(Figure 3), --config.data.subset= trains on a subset (Figure 4), and optimizer=sgd is Table 7's.

Hardware: batch 4096 at 224 pixels needs several accelerators; --config.optimizer.micro_batches=16
computes it in parts. In TPUv3-core-days (Table 2): H/14 on JFT-300M 2,500, L/16 680, L/16 on
ImageNet-21k 230.

Expected top-1 in percent, from scratch (github.com/google-research/vision_transformer, issue 62):

                                   B/16    B/32    L/16    L/32    H/14
    ImageNet                       74.79   69.19   72.59   66.90
    ImageNet-21k, validation       47.88   44.04   49.90   45.42   49.06

docs/recipes.md has the commands of the figures, and every choice that the paper leaves open.
"""

from ml_collections import ConfigDict, FieldReference

from vit_jax.analysis.published.recipes import TABLE_3, Table3Row
from vit_jax.config import parse_argument
from vit_jax.data.sources.published import named
from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.sizes import Name, parse_name

_RECIPES = ("imagenet", "imagenet21k", "jft")
# Runs of Tables 5 and 6 without a row in Table 3: docs/recipes.md says which row they take.
_OPEN = (
    Table3Row(("BiT-R200x3",), "jft", (14,), 6e-4, "linear", 0.1, 0.0),
    Table3Row(("ViT-H/14",), "imagenet21k", (90,), 1e-3, "linear", 0.03, 0.1),
)
# The rate falls after these epochs, as shares of BiT's 40.
_BIT_MILESTONES = tuple(epoch / 40 for epoch in (10, 23, 30, 37))


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(
        argument,
        *("model", "data"),
        recipe=None,
        optimizer="adamw",
        weight_decay=None,
        dropout=None,
        label_smoothing=None,
    )
    recipe = chosen.recipe or (chosen.data if chosen.data in _RECIPES else None)
    if recipe is None:
        config = _single_machine(chosen.model, chosen.data)
    elif recipe in _RECIPES:
        config = _table_3(chosen.model, chosen.data, recipe)
    else:
        raise UserError(f"no recipe {recipe!r}; write one of {', '.join(_RECIPES)}")
    if (
        chosen.optimizer == "sgd"
        and recipe == "jft"
        and ModelConfig(chosen.model).family == "resnet"
    ):
        config.optimizer = _table_7(config.data.get_ref("batch_size"))
    elif chosen.optimizer != "adamw":
        raise UserError(
            f"optimizer={chosen.optimizer} is not of this recipe; sgd is that of Table 7, for a "
            "ResNet with recipe=jft"
        )
    if chosen.weight_decay is not None:
        config.optimizer.weight_decay = float(chosen.weight_decay)
    if chosen.dropout is not None:
        config.model.dropout = float(chosen.dropout)
    if chosen.label_smoothing is not None:
        config.label_smoothing = float(chosen.label_smoothing)
    return config


def _table_3(model: str, data: str, recipe: str) -> ConfigDict:
    row, dataset = _row(model, recipe), named(data)
    config = ConfigDict(
        {
            "model": {"name": model, "image_size": 224, "head_bias": -10.0, "dtype": "bfloat16"},
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.pretrain,
                "batch_size": 4096,
                "workers": 8,
            },
            "optimizer": {
                "name": "adamw",
                "lr": row.lr,
                "schedule": row.schedule,
                "warmup_steps": 10_000,
                "weight_decay": row.weight_decay,
            },
            "loss": "sigmoid",
            "epochs": row.epochs[-1],
            "evals": {
                name: {"split": split, "every_steps": 5000}
                for name, split in dataset.held_out.items()
            },
            "checkpoint": {"every_steps": 1000},
        }
    )
    if ModelConfig(model).family != "resnet":
        config.model.dropout = row.dropout
        config.model.representation_size = ModelConfig(model).size.width
    if recipe == "imagenet":
        config.optimizer.clip_norm = 1.0
        config.label_smoothing = 1e-4
    return config


def _row(model: str, recipe: str) -> Table3Row:
    name = parse_name(model)
    if name.family == "hybrid" and recipe != "jft":
        name = Name("vit", name.size, name.blocks, name.patch_size)
    rows = [row for row in (*TABLE_3, *_OPEN) if row.data == recipe]
    for row in rows:
        if any(_stands_for(listed, name) for listed in row.models):
            return row
    models = ", ".join(model for row in rows for model in row.models)
    raise UserError(
        f"Table 3 has no row for {model} on {recipe}; it has {models} (recipe= takes the rows of "
        "other data; configs/augreg.py has recipes for more ViTs and hybrids)"
    )


def _stands_for(listed: str, name: Name) -> bool:
    if listed == "ViT-*":
        return name.family == "vit"
    return parse_name(listed) == name or parse_name(listed) == name._replace(order="pre")


def _table_7(batch_size: FieldReference) -> ConfigDict:
    return ConfigDict(
        {
            "name": "sgd",
            "lr": 0.03 / 256 * batch_size,
            "schedule": "step",
            "milestones": _BIT_MILESTONES,
            "warmup_steps": 5000,
            "momentum": 0.9,
            "weight_decay": 1e-3,
        }
    )


def _single_machine(model: str, data: str) -> ConfigDict:
    dataset = named(data)
    config = ConfigDict(
        {
            "model": {"name": model, "image_size": 224, "dtype": "bfloat16"},
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.train,
                "batch_size": 128,
                "workers": 2,
            },
            "optimizer": {
                "name": "adamw",
                "lr": 1e-3,
                "schedule": "cosine",
                "warmup_steps": 500,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "total_steps": 10_000,
            "evals": {"test": {"split": dataset.test, "every_steps": 1000}},
            "checkpoint": {"every_steps": 1000},
        }
    )
    if ModelConfig(model).family in ("vit", "hybrid"):
        config.model.dropout = 0.1
    return config
