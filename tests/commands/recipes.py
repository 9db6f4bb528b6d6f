"""Published recipes by the names of their configs."""

from vit_jax.config import load_config
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig


def load(spec: str, *overrides: str) -> TrainConfig:
    return build(TrainConfig, load_config(f"configs/{spec}", overrides))
