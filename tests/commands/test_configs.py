"""The configs that come with the package, against the paper's tables."""

import pytest

from vit_jax.config import load_config
from vit_jax.errors import UserError
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig


def load(spec: str, *overrides: str) -> TrainConfig:
    return build(TrainConfig, load_config(spec, overrides))


# Table 3: epochs, base rate, decay, weight decay, dropout, clipping (stated for ImageNet alone).
@pytest.mark.parametrize(
    ("data", "row"),
    [
        ("imagenet", (300, 3e-3, "cosine", 0.3, 0.1, 1.0)),
        ("imagenet21k", (90, 1e-3, "linear", 0.03, 0.1, None)),
    ],
)
@pytest.mark.parametrize(("model", "width"), [("b16", 768), ("L/32", 1024)])
def test_pretraining_is_table_3(model: str, width: int, data: str, row: tuple) -> None:
    config = load(f"configs/pretrain.py:{model},{data}")
    optimizer = config.optimizer
    assert row == (
        config.epochs,
        optimizer.lr,
        optimizer.schedule,
        optimizer.weight_decay,
        config.model.dropout,
        optimizer.clip_norm,
    )
    assert (config.data.batch_size, optimizer.warmup_steps) == (4096, 10_000)
    assert (config.model.image_size, config.loss) == (224, "sigmoid")
    assert config.model.representation_size == width


# Table 4: steps, and the grid that the rate must be of.
@pytest.mark.parametrize(
    ("data", "steps", "grid"),
    [
        ("imagenet", 20_000, (0.003, 0.01, 0.03, 0.06)),
        ("cifar10", 10_000, (0.001, 0.003, 0.01, 0.03)),
        ("cifar100", 10_000, (0.001, 0.003, 0.01, 0.03)),
        ("pets", 500, (0.001, 0.003, 0.01, 0.03)),
        ("flowers", 500, (0.001, 0.003, 0.01, 0.03)),
    ],
)
def test_fine_tuning_is_table_4(data: str, steps: int, grid: tuple[float, ...]) -> None:
    config = load(f"configs/finetune.py:b16,{data}", "--config.init_from=weights.npz")
    optimizer = config.optimizer
    assert config.total_steps == steps
    assert optimizer.lr in grid
    assert (optimizer.name, optimizer.momentum, optimizer.schedule) == ("sgd", 0.9, "cosine")
    assert (optimizer.weight_decay, optimizer.clip_norm) == (0.0, 1.0)
    assert (config.data.batch_size, config.model.image_size) == (512, 384)


def test_fine_tuning_asks_for_weights() -> None:
    with pytest.raises(UserError, match="set it with --config.init_from=VALUE"):
        load("configs/finetune.py:b16,cifar10")


def test_every_other_config_is_one() -> None:
    for spec in ("quickstart.py", "fashion_mnist.py:./images", "pretrain.py:ti16,./photos"):
        assert load(f"configs/{spec}").evals["test"].split == "test"
