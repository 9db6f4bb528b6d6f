"""Every published recipe: the papers' tables, typed from them, against the configs."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.small_models import refusal
from vit_jax.analysis.published import recipes
from vit_jax.config import load_config
from vit_jax.schema import build, to_dict
from vit_jax.training.config import TrainConfig


def load(spec: str, *overrides: str) -> TrainConfig:
    return build(TrainConfig, load_config(f"configs/{spec}", overrides))


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


@pytest.mark.parametrize(
    ("recipe", "dataset", "train", "evals"),
    [
        ("imagenet", "imagenet2012", "train[:99%]", {"train[99%:]", "validation"}),
        ("imagenet21k", "imagenet21k", "full[51200:]", {"full[25600:51200]"}),
    ],
)
def test_pretraining_holds_out_what_the_authors_hold_out(
    recipe: str, dataset: str, train: str, evals: Any
) -> None:
    for spec in (f"pretrain.py:b16,{recipe}", f"augreg.py:B_16,{recipe},aug=none"):
        config = load(spec)
        assert (config.data.dataset, config.data.train) == (dataset, train)
        assert {evaluation.split for evaluation in config.evals.values()} == evals


def test_other_data_takes_a_recipe_by_name() -> None:
    config = load("pretrain.py:h14,./images,recipe=jft")
    assert (config.data.dataset, config.data.train) == ("./images", "train")
    assert (config.epochs, config.optimizer.lr) == (14, 3e-4)


# What Tables 5 and 6 have results of and Table 3 no row for: see the header of the config.
@pytest.mark.parametrize(
    ("spec", "epochs", "lr", "weight_decay"),
    [
        ("R200x3,jft", 14, 6e-4, 0.1),
        ("h14,imagenet21k", 90, 1e-3, 0.03),
        ("R50+ViT-L/16,imagenet21k", 90, 1e-3, 0.03),
        ("R26+ViT-S/32,imagenet", 300, 3e-3, 0.3),
    ],
)
def test_rows_that_the_paper_leaves_open(
    spec: str, epochs: int, lr: float, weight_decay: float
) -> None:
    config = load(f"pretrain.py:{spec}")
    assert (config.epochs, config.optimizer.lr) == (epochs, lr)
    assert config.optimizer.weight_decay == weight_decay


@pytest.mark.parametrize(
    "spec", ["ti16,jft", "s16,imagenet21k", "R50x1,imagenet", "Mixer-B/16,imagenet"]
)
def test_a_model_without_a_row_in_table_3_is_refused(spec: str) -> None:
    model, _, data = spec.partition(",")
    told = refusal(load, f"pretrain.py:{spec}")
    assert told.startswith(f"Table 3 has no row for {model} on {data}; it has ViT-")


def test_the_regularisation_of_figure_3() -> None:
    grid = "weight_decay=0.1,dropout=0.0,label_smoothing=0.0001"
    config = load(f"pretrain.py:l16,imagenet21k,{grid}")
    assert (config.optimizer.weight_decay, config.model.dropout) == (0.1, 0.0)
    assert config.label_smoothing == 1e-4
    told = refusal(load, "pretrain.py:R50x1,jft,dropout=0.1")
    assert "dropout would be ignored: R50x1 is a ResNet" in told


# Figure 4's caption: ViT-b/32 is half as wide as ViT-B/32 of Table 1.
def test_subsets_as_in_figure_4() -> None:
    config = load(
        "pretrain.py:b32,jft",
        *("--config.data.subset=9000000", "--config.epochs=none"),
        *("--config.total_steps=517822", "--config.early_stop.eval=test"),
        *("--config.model.width=384", "--config.model.mlp_dim=1536"),
        "--config.model.representation_size=384",
    )
    size = config.model.size
    assert (2 * size.width, 2 * size.mlp_dim) == (768, 3072)
    assert size.depth == 12
    assert config.total_steps == 7 * 303_000_000 // config.data.batch_size
    assert config.early_stop is not None
    assert (config.early_stop.name, config.early_stop.patience) == ("test/top1", None)


# Table 7 and BiT's section 3.3: 0.03 for 256 images; 10, 23, 30 and 37 of 40 epochs.
def test_resnets_with_sgd_as_in_table_7() -> None:
    config = load("pretrain.py:R152x2,jft,optimizer=sgd")
    optimizer = config.optimizer
    assert (config.epochs, config.data.batch_size) == (7, 4096)
    assert optimizer.lr == pytest.approx(0.03 * 4096 / 256)
    assert (optimizer.name, optimizer.momentum, optimizer.warmup_steps) == ("sgd", 0.9, 5000)
    assert (optimizer.schedule, config.loss) == ("step", "sigmoid")
    assert optimizer.milestones == (10 / 40, 23 / 40, 30 / 40, 37 / 40)
    # 1e-4 in the gradient, of which momentum 0.9 makes 1 + 0.9 + 0.81 + ... times as much.
    assert optimizer.weight_decay == pytest.approx(1e-4 / (1 - 0.9))
    smaller = load("pretrain.py:R50x1,jft,optimizer=sgd", "--config.data.batch_size=512")
    assert smaller.optimizer.lr == pytest.approx(0.03 * 512 / 256)
    for spec in ("b16,jft", "R50x1,./photos"):
        assert "sgd is that of Table 7" in refusal(load, f"pretrain.py:{spec},optimizer=sgd")


def test_augreg_keeps_training_and_fine_tuning_apart() -> None:
    assert refusal(load, "augreg.py:B_16,imagenet,aug=light1,lr=0.01") == (
        "lr= would be ignored: it is of fine-tuning, and aug= asks for pre-training; leave it out"
    )
    assert refusal(load, "augreg.py:B_16,pets,dropout=0.1") == (
        "dropout= would be ignored: it is of pre-training, which aug=LEVEL asks for; add that, or "
        "leave it out"
    )
    assert "did you mean 'medium1'?" in refusal(load, "augreg.py:B_16,imagenet,aug=medum1")
    # A name of files.
    assert refusal(load, "augreg.py:B_16,imagenet,aug=light0").endswith(
        "write aug=light1, as the paper names it"
    )
    assert refusal(load, "augreg.py:b16,imagenet,aug=none") == (
        "'b16' is no model of AugReg's; did you mean 'B_16'?"
    )
    # Fine-tuning has a default, pets.
    assert "needs data after the model" in refusal(load, "augreg.py:B_16,aug=light1")
    assert load("augreg.py:R26_S_32,./photos,aug=light1").model.name == "R26+ViT-S/32"


def test_augreg_without_weight_decay_masks_none() -> None:
    optimizer = load("augreg.py:B_16,imagenet,aug=none,weight_decay=0").optimizer
    assert (optimizer.weight_decay, optimizer.decay_mask) == (0.0, "all")


# "Better plain ViT baselines".
@pytest.mark.parametrize("epochs", [90, 150, 300])
def test_the_plain_baseline(epochs: int) -> None:
    config = load(f"plain_vit_s16.py:{epochs}")
    model, data, optimizer = config.model, config.data, config.optimizer
    assert (config.epochs, config.loss, config.label_smoothing) == (epochs, "softmax", 0.0)
    assert (model.name, model.image_size, model.positions) == ("ViT-S/16", 224, "sincos2d")
    assert (model.pooling, model.representation_size) == ("gap", 384)
    assert (model.dropout, model.stochastic_depth, optimizer.average) == (0.0, 0.0, None)
    assert model.preprocessing is not None
    assert (model.preprocessing.resize, model.preprocessing.short_side) == ("short_side", 256)
    assert (data.dataset, data.train, data.batch_size) == ("imagenet2012", "train[:99%]", 1024)
    assert (data.crop, data.flip, data.mixup) == ("inception", True, 0.2)
    assert data.randaugment is not None
    assert (data.randaugment.layers, data.randaugment.magnitude) == (2, 10)
    assert (optimizer.name, optimizer.lr, optimizer.schedule) == ("adamw", 1e-3, "cosine")
    assert (optimizer.warmup_steps, optimizer.clip_norm) == (10_000, 1.0)
    assert optimizer.momentum_dtype == "bfloat16"
    # 1e-4 that is not multiplied by the rate.
    assert optimizer.weight_decay * optimizer.lr == pytest.approx(1e-4)


# BiT's section 3.3: steps by the number of training examples, resolution by that of the images.
@pytest.mark.parametrize(
    ("spec", "steps", "mixup", "crop"),
    [
        ("R50x1,pets", 500, 0.0, (448, 384)),
        ("BiT-R50x1,flowers", 500, 0.0, (448, 384)),
        ("BiT-R101x3,cifar10", 10_000, 0.1, (160, 128)),
        ("BiT-R152x4,cifar100", 10_000, 0.1, (160, 128)),
        ("BiT-R152x2,imagenet", 20_000, 0.1, (448, 384)),
        ("BiT-R152x4,imagenet", 20_000, 0.1, (512, 480)),
        ("R50x1,./x,examples=19999,side=95", 500, 0.0, (160, 128)),
        ("R50x1,./x,examples=20000,side=96", 10_000, 0.1, (448, 384)),
        ("R50x1,./x,examples=499999", 10_000, 0.1, (448, 384)),
        ("R50x1,./x,examples=500000", 20_000, 0.1, (448, 384)),
    ],
)
def test_the_bit_hyper_rule(spec: str, steps: int, mixup: float, crop: tuple[int, ...]) -> None:
    config = load(f"bit_hyperrule.py:{spec},weights=w.npz")
    data, optimizer = config.data, config.optimizer
    assert (config.total_steps, data.mixup) == (steps, mixup)
    assert (data.crop, data.crop_side, config.model.image_size) == ("resize", *crop)
    assert (optimizer.name, optimizer.lr, optimizer.momentum) == ("sgd", 0.003, 0.9)
    assert (optimizer.weight_decay, optimizer.clip_norm) == (0.0, None)
    assert (data.batch_size, data.flip, config.loss) == (512, True, "softmax")
    # 30, 60 and 90 %.
    assert (optimizer.schedule, optimizer.milestones) == ("step", None)
    # As in the code.
    assert optimizer.warmup_steps == (100 if steps == 500 else 500)


def test_the_bit_hyper_rule_asks_for_the_number_of_examples() -> None:
    told = refusal(load, "bit_hyperrule.py:R50x1,./photos,weights=w.npz")
    assert told.endswith("say that of ./photos with examples=NUMBER in the argument")
    for number in (0, -5):
        told = refusal(load, f"bit_hyperrule.py:R50x1,./photos,examples={number},weights=w.npz")
        assert told == f"examples={number}: the number of training examples must be at least 1"


def test_head_biases_are_those_of_rare_classes() -> None:
    """With -ln K the sum of K predictions of a sigmoid is about 1."""
    for data, classes in (("imagenet", 1000), ("imagenet21k", 21_843)):
        bias = load(f"augreg.py:B_16,{data},aug=none").model.head_bias
        assert classes / (1 + math.exp(-bias)) == pytest.approx(1, abs=0.02)
