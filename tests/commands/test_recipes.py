"""Every published recipe: the papers' tables, typed from them, against the configs."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.commands.recipes import load
from vit_jax.analysis.published import recipes
from vit_jax.schema import to_dict
from vit_jax.training.config import TrainConfig


def value(config: TrainConfig, dotted: str) -> object:
    if dotted == "optimizer.betas":  # as `describe` prints them
        return config.optimizer.betas
    section = to_dict(config)
    for key in dotted.split("."):
        section = section[key]
    return section


# Table 3. Models, epochs, base rate, decay, weight decay, dropout.
JFT: list[Any] = [
    ("B/16 B/32", 7, 8e-4, "linear", 0.1, 0.0),
    ("L/32", 7, 6e-4, "linear", 0.1, 0.0),
    ("L/16", (7, 14), 4e-4, "linear", 0.1, 0.0),
    ("H/14", 14, 3e-4, "linear", 0.1, 0.0),
    ("R50x1 R50x2 BiT-R50x1 BiT-R50x2", 7, 1e-3, "linear", 0.1, 0.0),
    ("R101x1 BiT-R101x1", 7, 8e-4, "linear", 0.1, 0.0),
    ("R152x1 R152x2 BiT-R152x1 BiT-R152x2", 7, 6e-4, "linear", 0.1, 0.0),
    ("R50+ViT-B/16 R50+ViT-B/32", 7, 8e-4, "linear", 0.1, 0.0),
    ("R50+ViT-L/32", 7, 2e-4, "linear", 0.1, 0.0),
    ("R50+ViT-L/16", (7, 14), 4e-4, "linear", 0.1, 0.0),
]


IMAGENET21K: list[Any] = [
    ("B/16 B/32", 90, 1e-3, "linear", 0.03, 0.1),
    ("L/16 L/32", (30, 90), 1e-3, "linear", 0.03, 0.1),
]


IMAGENET: list[Any] = [("Ti/16 S/16 S/32 B/16 B/32 L/16 L/32 H/14", 300, 3e-3, "cosine", 0.3, 0.1)]


TABLE_3 = {"jft": JFT, "imagenet21k": IMAGENET21K, "imagenet": IMAGENET}


def width(model: str) -> int | None:
    """Hidden units of the head: those of Table 1, none in a ResNet."""
    widths = {"Ti/": 192, "S/": 384, "B/": 768, "L/": 1024, "H/": 1280}
    return next((number for size, number in widths.items() if size in model), None)


# Section 4.1.
ADAM = {"optimizer.name": "adamw", "optimizer.betas": (0.9, 0.999)}


CROPS_AND_FLIPS = {"data.crop": "inception", "data.crop_area": [0.05, 1.0], "data.flip": True}


def table_3() -> Iterator[Any]:
    for data, rows in TABLE_3.items():
        for models, epochs, lr, schedule, weight_decay, dropout in rows:
            for model in models.split():
                yield (
                    f"pretrain.py:{model},{data}",
                    {
                        # The caption and section 4.1.
                        "data.batch_size": 4096,
                        "optimizer.warmup_steps": 10_000,
                        "model.image_size": 224,
                        "optimizer.clip_norm": 1.0 if data == "imagenet" else None,
                        **ADAM,
                        # The row.
                        "epochs": max(epochs) if isinstance(epochs, tuple) else epochs,
                        "optimizer.lr": lr,
                        "optimizer.schedule": schedule,
                        "optimizer.weight_decay": weight_decay,
                        "model.dropout": dropout,
                        # The authors' answers.
                        "loss": "sigmoid",
                        "model.head_bias": -10.0,
                        "model.representation_size": width(model),
                        # Choices.
                        "label_smoothing": 1e-4 if data == "imagenet" else 0.0,
                        "optimizer.decay_mask": "all",
                        "model.stochastic_depth": 0.0,
                        "data.randaugment": None,
                        "data.mixup": 0.0,
                        **CROPS_AND_FLIPS,
                    },
                )


RATES = (0.001, 0.003, 0.01, 0.03)


# Table 4: steps and rates.
TABLE_4 = {
    "imagenet": (20_000, (0.003, 0.01, 0.03, 0.06)),
    "cifar100": (10_000, RATES),
    "cifar10": (10_000, RATES),
    "pets": (500, RATES),
    "flowers": (500, RATES),
    "a_task_of_vtab": (2500, (0.01,)),
}


def table_4() -> Iterator[Any]:
    for data, (steps, rates) in TABLE_4.items():
        for rate in rates:
            yield (
                f"finetune.py:b16,{data},lr={rate},weights=w.npz",
                {
                    "total_steps": steps,
                    "optimizer.lr": rate,
                    "optimizer.name": "sgd",
                    "optimizer.momentum": 0.9,
                    "optimizer.momentum_dtype": "bfloat16",
                    "optimizer.schedule": "cosine",
                    "optimizer.weight_decay": 0.0,
                    "optimizer.clip_norm": 1.0,
                    "optimizer.average": None,
                    "data.batch_size": 512,
                    "model.image_size": 384,
                    "model.dropout": 0.0,
                    "model.representation_size": None,
                    "loss": "softmax",
                    "label_smoothing": 0.0,
                    **CROPS_AND_FLIPS,
                },
            )


# "How to train your ViT?": RandAugment's layers and magnitude, Mixup's ratio.
LEVELS = {
    "none": (0, 0, 0.0),
    "light1": (2, 0, 0.0),
    "light2": (2, 10, 0.2),
    "medium1": (2, 15, 0.2),
    "medium2": (2, 15, 0.5),
    "strong1": (2, 20, 0.5),
    "strong2": (2, 20, 0.8),
}


def augreg() -> Iterator[Any]:
    # Head bias: -ln of the number of classes.
    for data, bias in (("imagenet", -6.9), ("imagenet21k", -10.0)):
        for level, (layers, magnitude, mixup) in LEVELS.items():
            for weight_decay, dropout in ((0.1, 0.0), (0.03, 0.1)):
                options = f"aug={level},weight_decay={weight_decay},dropout={dropout}"
                yield (
                    f"augreg.py:B_16,{data},{options}",
                    {
                        "data.randaugment": {
                            "layers": layers,
                            "magnitude": magnitude,
                            "original_faults": True,
                        }
                        if layers
                        else None,
                        "data.mixup": mixup,
                        "model.dropout": dropout,
                        "model.stochastic_depth": dropout,
                        "optimizer.weight_decay": weight_decay,
                        "optimizer.decay_mask": "kernels",
                        "optimizer.momentum_dtype": "bfloat16",
                        **ADAM,
                        **CROPS_AND_FLIPS,
                        "data.batch_size": 4096,
                        "optimizer.lr": 1e-3,
                        "optimizer.schedule": "cosine",
                        "optimizer.warmup_steps": 10_000,
                        "optimizer.clip_norm": 1.0,
                        "epochs": 300,
                        "loss": "sigmoid",
                        "model.head_bias": bias,
                        "model.image_size": 224,
                        "model.representation_size": None,
                        "label_smoothing": 0.0,
                    },
                )


@pytest.mark.parametrize(("spec", "expected"), [*table_3(), *table_4(), *augreg()])
def test_every_published_recipe(spec: str, expected: dict[str, object]) -> None:
    config = load(spec)
    assert {key: value(config, key) for key in expected} == expected


def test_two_numbers_of_epochs_are_both_known() -> None:
    both = {
        (model, data): epochs
        for data, rows in TABLE_3.items()
        for models, epochs, *_ in rows
        for model in models.split()
        if isinstance(epochs, tuple)
    }
    listed = {
        (model.removeprefix("ViT-"), row.data): row.epochs
        for row in recipes.TABLE_3
        for model in row.models
        if len(row.epochs) > 1
    }
    assert listed == both
