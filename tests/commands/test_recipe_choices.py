"""What a recipe's arguments change, what the papers leave open, and what is refused."""

import math
from typing import Any

import pytest

from tests.commands.recipes import load
from tests.small_models import refusal


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


# big_vision's configs/proj/scaling_laws/train_vit_g.py; its decay of 0.03 * 8e-4 is not multiplied
# by the rate, and here it is.
def test_the_largest_sizes_follow_the_authors_code() -> None:
    config = load("scaling_vit.py:G14,imagenet21k")
    optimizer, model = config.optimizer, config.model
    assert (model.name, model.pooling, model.head_bias) == ("G14", "attention", -10.0)
    assert (config.data.batch_size, config.total_steps, config.loss) == (16_384, 10**6, "sigmoid")
    assert (optimizer.name, optimizer.betas) == ("adafactor", (0.9, 0.999))
    assert (optimizer.momentum_dtype, optimizer.lr, optimizer.clip_norm) == ("bfloat16", 8e-4, 1.0)
    assert (optimizer.schedule, optimizer.timescale) == ("rsqrt", 10_000)
    assert (optimizer.warmup_steps, optimizer.cooldown_steps) == (10_000, 50_000)
    assert (optimizer.weight_decay, optimizer.decay_mask) == (0.03, "kernels")
    assert optimizer.decays == (("head/kernel", 100.0),)
