"""Tables 1, 3 and 4 of the paper: models and recipes beside those of this package."""

from collections.abc import Collection, Iterator, Mapping

from vit_jax.analysis.macs import count_params
from vit_jax.analysis.published.recipes import (
    FINE_TUNING,
    PRE_TRAINING,
    TABLE_1,
    TABLE_3,
    TABLE_4,
    Table3Row,
)
from vit_jax.config import load_config
from vit_jax.experiments.paper.page import Page
from vit_jax.models.config import ModelConfig, family_of
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig

_PAPER = "arXiv 2010.11929v2"
# What a row of Table 3 is tried with where it is for every ViT.
_EVERY_VIT = ("ViT-B/16", "ViT-B/32", "ViT-L/16", "ViT-L/32", "ViT-H/14")


def table_1() -> Page:
    """The models, with our numbers of parameters."""
    rows = []
    for row in TABLE_1:
        config = ModelConfig(name=row.model, num_classes=1000)
        ours = sum(count_params(config).values())
        shape = (str(number) for number in config.size)
        rows.append((row.model, *shape, f"{row.params:.0f}M", f"{ours:,}"))
    return Page(
        title="parameters with 1,000 classes at 224 pixels",
        source=f"{_PAPER}, Table 1",
        heading=("model", "layers", "width", "MLP", "heads", "paper", "ours"),
        rows=tuple(rows),
    )


def table_3() -> Page:
    """The recipes of pre-training, and where `configs/pretrain.py` differs."""
    rows = [
        (
            " ".join(row.models),
            row.data,
            "/".join(map(str, row.epochs)),
            f"{row.lr:g}",
            row.schedule,
            f"{row.weight_decay:g}",
            f"{row.dropout:g}",
            "; ".join(_differences_3(row)) or f"same, epochs={row.epochs[-1]}",
        )
        for row in TABLE_3
    ]
    return Page(
        title="pre-training with Adam, batch 4096, warm-up of 10,000 steps, at 224 pixels",
        source=f"{_PAPER}, Table 3",
        heading=(
            *("models", "data", "epochs", "rate", "decay", "weight decay", "dropout"),
            "configs/pretrain.py",
        ),
        rows=tuple(rows),
        notes=(
            "python -m vit_jax train --config=configs/pretrain.py:MODEL,DATA --workdir=DIR",
            "a ResNet has no dropout; ViT-* is tried with B, L and H",
            "docs/recipes.md: what the table leaves open, and runs of other tables without a row",
        ),
        left=2,
    )


def _differences_3(row: Table3Row) -> Iterator[str]:
    """What differs for any model of a row."""
    for model in _EVERY_VIT if row.models == ("ViT-*",) else row.models:
        config = build(TrainConfig, load_config(f"configs/pretrain.py:{model},{row.data}"))
        allowed: dict[str, tuple[object, ...]] = {
            **{key: (value,) for key, value in PRE_TRAINING.items()},
            "epochs": row.epochs,
            "optimizer.lr": (row.lr,),
            "optimizer.schedule": (row.schedule,),
            "optimizer.weight_decay": (row.weight_decay,),
        }
        if "dropout" in family_of(config.model).keys:
            allowed["model.dropout"] = (row.dropout,)
        yield from (f"{model}: {each}" for each in _differences(config, allowed))


def table_4() -> Page:
    """The recipes of fine-tuning, and what `configs/finetune.py` has."""
    rows = []
    for data, row in TABLE_4.items():
        config = build(TrainConfig, load_config(f"configs/finetune.py:b16,{data},weights=WEIGHTS"))
        allowed: dict[str, tuple[object, ...]] = {
            **{key: (value,) for key, value in FINE_TUNING.items()},
            "total_steps": (row.steps,),
            "optimizer.lr": row.rates,
        }
        own = "; ".join(_differences(config, allowed)) or f"same, lr={config.optimizer.lr:g}"
        rates = ", ".join(f"{rate:g}" for rate in row.rates)
        rows.append((data, f"{row.steps:,}", rates, own))
    return Page(
        title="fine-tuning with SGD of momentum 0.9, batch 512, cosine decay, no weight "
        "decay, clipped at norm 1, at 384 pixels",
        source=f"{_PAPER}, Table 4",
        heading=("data", "steps", "rates", "configs/finetune.py"),
        rows=tuple(rows),
        notes=(
            "python -m vit_jax train --config=configs/finetune.py:MODEL,DATA,weights=WEIGHTS,"
            "lr=RATE --workdir=DIR",
            "vtab is each task of VTAB-1k; the default rates are those that big_vision reports as "
            "chosen for B/32",
        ),
    )


def _differences(config: TrainConfig, allowed: Mapping[str, Collection[object]]) -> Iterator[str]:
    """The values of a config that are not among the allowed ones, by dotted key."""
    for key, values in allowed.items():
        value: object = config
        for part in key.split("."):
            value = getattr(value, part)
        if value not in values:
            yield f"{key}={value}"
