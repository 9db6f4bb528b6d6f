"""The configs that come with the package, against the paper's tables."""

import pytest

from vit_jax.config import load_config
from vit_jax.data.config import DataConfig, RandAugmentConfig
from vit_jax.errors import UserError
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig


def load(spec: str, *overrides: str) -> TrainConfig:
    return build(TrainConfig, load_config(spec, overrides))


RATES = (0.001, 0.003, 0.01, 0.03)


# Table 4: the grid that the default rate must be of. Warm-up, by the steps of test_recipes.py: the
# paper's code, and AugReg's Table 4 for runs of 500 and 2,500 steps.
@pytest.mark.parametrize(
    ("data", "warmup", "grid"),
    [
        ("imagenet", 500, (0.003, 0.01, 0.03, 0.06)),
        ("cifar10", 500, RATES),
        ("cifar100", 500, RATES),
        ("pets", 100, RATES),
        ("flowers", 100, RATES),
        ("a_task_of_vtab", 200, (0.01,)),
        ("./photos", 200, (0.01,)),
    ],
)
def test_fine_tuning_warms_up_to_a_rate_of_table_4(
    data: str, warmup: int, grid: tuple[float, ...]
) -> None:
    config = load(f"configs/finetune.py:b16,{data},weights=weights.npz")
    assert config.optimizer.warmup_steps == warmup
    assert config.optimizer.lr in grid
    assert config.model.name == "b16"
    assert config.init_from == "weights.npz"


def _assert_recipe_of_table_4(config: TrainConfig) -> None:
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.momentum, optimizer.schedule) == ("sgd", 0.9, "cosine")
    assert (optimizer.weight_decay, optimizer.clip_norm) == (0.0, 1.0)
    # The paper's code.
    assert optimizer.momentum_dtype == "bfloat16"
    assert (config.data.batch_size, config.loss, config.label_smoothing) == (512, "softmax", 0.0)
    assert (config.model.dropout, config.model.stochastic_depth) == (0.0, 0.0)
    assert config.model.representation_size is None  # B.1.1: the whole head is dropped


# Appendix B.1.1: the ImageNet runs of Table 2, their patches and positions.
@pytest.mark.parametrize(("model", "size", "tokens"), [("L/16", 512, 1025), ("h14", 518, 1370)])
def test_fine_tuning_on_imagenet_as_in_table_2(model: str, size: int, tokens: int) -> None:
    table_2 = f"size={size},average=0.9999"
    config = load(f"configs/finetune.py:{model},imagenet,{table_2},weights=runs/{model}")
    _assert_recipe_of_table_4(config)
    assert (config.data.dataset, config.evals["test"].split) == ("imagenet2012", "validation")
    assert config.model.input_size == (size, size)
    assert config.model.sequence_length == tokens
    assert config.optimizer.average == 0.9999


def test_fine_tuning_on_a_folder_at_another_rate() -> None:
    config = load("configs/finetune.py:s16,./photos,lr=0.02,size=224,weights=w.npz")
    _assert_recipe_of_table_4(config)
    assert (config.data.dataset, config.evals["test"].split) == ("./photos", "test")
    assert (config.optimizer.lr, config.model.image_size) == (0.02, 224)


def test_fine_tuning_asks_for_weights() -> None:
    with pytest.raises(UserError, match="set it with --config.init_from=VALUE"):
        load("configs/finetune.py:b16,cifar10")
    config = load("configs/finetune.py:b16,cifar10", "--config.init_from=weights.npz")
    assert config.init_from == "weights.npz"


def test_fine_tuning_keeps_options_apart() -> None:
    with pytest.raises(UserError, match=r"finetune.py, line \d+: ValueError: .*'large'"):
        load("configs/finetune.py:b16,cifar10,size=large,weights=w.npz")
    with pytest.raises(UserError, match="no field 'weight' in .*; did you mean 'weights'"):
        load("configs/finetune.py:b16,cifar10,weight=w.npz")


# Table 4 of "How to train your ViT?": rates, and pairs of steps and warm-up.
@pytest.mark.parametrize(
    ("data", "rates", "steps"),
    [
        ("imagenet", (0.01, 0.03), {(20_000, 500)}),
        ("pets", (0.001, 0.003, 0.01), {(500, 100), (2500, 200)}),
        ("cifar100", (0.001, 0.003, 0.01), {(2500, 200), (10_000, 500)}),
        ("resisc45", (0.001, 0.003, 0.01), {(2500, 200), (10_000, 500)}),
    ],
)
def test_augreg_is_its_table_4(
    data: str, rates: tuple[float, ...], steps: set[tuple[int, int]]
) -> None:
    config = load(f"configs/augreg.py:B_16,{data}")
    _assert_recipe_of_table_4(config)
    assert config.optimizer.lr in rates
    assert (config.total_steps, config.optimizer.warmup_steps) in steps
    assert config.model.image_size == 384
    assert load(f"configs/augreg.py:B_16,{data},size=224").model.image_size == 224


# As the recommended files on ImageNet at 384 pixels are named.
@pytest.mark.parametrize(
    ("models", "rate"),
    [
        ("S_32 B_32 L_16 R26_S_32 R50_L_32 runs/mine,model=l16", 0.01),
        ("Ti_16 S_16 B_16 R_Ti_16 B_8 runs/mine,model=b16", 0.03),
    ],
)
def test_augreg_takes_the_rates_of_its_table_3(models: str, rate: float) -> None:
    for model in models.split():
        config = load(f"configs/augreg.py:{model},data=imagenet")
        assert config.optimizer.lr == rate, model


# A released file.
FULL_NAME = "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0"


@pytest.mark.parametrize(
    ("weights", "model", "init_from"),
    [
        ("B_16", "ViT-B/16", "augreg/B_16"),
        ("Ti_16", "ViT-Ti/16", "augreg/Ti_16"),
        (FULL_NAME, "ViT-B/32", f"augreg/{FULL_NAME}"),
        (f"files/{FULL_NAME}.npz", "ViT-B/32", f"files/{FULL_NAME}.npz"),
        ("runs/S_16-pets", "ViT-S/16", "runs/S_16-pets"),
        ("runs/mine,model=L/16", "L/16", "runs/mine"),
    ],
)
def test_augreg_knows_the_model(weights: str, model: str, init_from: str) -> None:
    config = load(f"configs/augreg.py:{weights}")
    assert (config.model.name, config.init_from) == (model, init_from)
    assert config.data.dataset == "oxford_iiit_pet"


def test_augreg_hybrids_have_the_papers_names() -> None:
    assert load_config("configs/augreg.py:R50_L_32")["model"]["name"] == "R50+ViT-L/32"
    assert load_config("configs/augreg.py:R_Ti_16")["model"]["name"] == "R+ViT-Ti/16"


def test_augreg_asks_for_a_model_that_no_name_tells() -> None:
    with pytest.raises(UserError, match="'runs/mine' does not begin with a model.*add model=B_16"):
        load("configs/augreg.py:runs/mine")


def test_every_other_config_is_one() -> None:
    for spec in ("quickstart.py", "fashion_mnist.py:./images", "pretrain.py:ti16,./photos"):
        assert load(f"configs/{spec}").evals["test"].split == "test"


def test_nothing_by_its_word_on_the_command_line() -> None:
    config = load(
        "configs/quickstart.py",
        *("--config.data.crop=none", "--config.model.remat=none", "--config.data.affine=none"),
        "--config.model.positions=none",
    )
    assert (config.data.crop, config.data.affine) == ("none", None)
    assert (config.model.remat, config.model.positions) == ("none", "none")


@pytest.mark.parametrize("budget", ["cpu", "gpu"])
def test_cifar10_with_more_and_less_augmentation(budget: str) -> None:
    def data(level: str) -> DataConfig:
        config = load(f"configs/cifar10_jpeg.py:./images,{level},budget={budget}")
        assert config.model.input_size == (32, 32)
        return config.data

    assert (data("plain").crop, data("plain").flip) == ("none", False)
    assert (data("crops").crop, data("crops").flip) == ("inception", True)
    assert data("crops").randaugment is None
    # AugReg's section 3.4.
    assert data("medium2").randaugment == RandAugmentConfig(layers=2, magnitude=15)
    assert (data("medium2").mixup, data("medium2").flip) == (0.5, True)
    with pytest.raises(UserError, match="no augmentation 'strong3'; did you mean 'strong"):
        data("strong3")
    with pytest.raises(UserError, match="no budget 'tpu'; write cpu or gpu"):
        load("configs/cifar10_jpeg.py:./images,crops,budget=tpu")
