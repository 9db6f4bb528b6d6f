"""Small models whose parameters all differ, and how weights and refusals are compared."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params
from vit_jax.models.placement import OneDevice
from vit_jax.preprocessing import PreprocessingConfig

# Two blocks, so that their order shows; heads as `weights` assumes them for a width of 32.
SMALL = ModelConfig("ViT-mu/8", image_size=16, num_classes=5, depth=2).completed()
# No family's default, so that it shows where a description is lost.
CROP = PreprocessingConfig(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    resize="short_side",
    short_side=18,
    interpolation="bicubic",
    antialias=True,
)

# What makes a config's ViT small enough for runs of some steps on the digits.
TINY_FLAGS = (
    *("--config.model.depth=1", "--config.model.width=16"),
    *("--config.model.mlp_dim=16", "--config.model.num_heads=2"),
)

_shapes = functools.cache(abstract_params)


def small_vit(**options: Any) -> ModelConfig:
    """A ViT half as wide as `SMALL`, whose MLPs are twice as wide as it, with options of a test."""
    size = {"depth": 2, "width": 16, "mlp_dim": 32, "num_heads": 2}
    common = {"name": "ViT-B/8", "image_size": 16, "num_classes": 5}
    return ModelConfig(**common | size | options).completed()


def random_params(model: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """Nested parameters of a model, normally distributed, in float32."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), _shapes(model))


def assert_same(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compares names, types and values, bit for bit; stored arrays are read."""
    actual, expected = (traverse_util.flatten_dict(p, sep="/") for p in (actual, expected))
    assert actual.keys() == expected.keys()
    for path, leaf in expected.items():
        read = np.asarray(actual[path])
        assert (read.dtype, read.shape) == (leaf.dtype, leaf.shape), path
        assert (actual[path].dtype, tuple(actual[path].shape)) == (leaf.dtype, leaf.shape), path
        np.testing.assert_array_equal(read, leaf, err_msg=path)


def refusal(call: Callable[..., object], *args: Any, **options: Any) -> str:
    """The one line with which a call refuses what the user gave it."""
    with pytest.raises(UserError) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


class Seen(OneDevice):
    """A placement that takes down the shape and type of each activation that it is given."""

    def __init__(self) -> None:
        self.activations: list[tuple[tuple[int, ...], np.dtype]] = []

    def constrain(self, x: jax.Array) -> jax.Array:
        self.activations.append((x.shape, x.dtype))
        return x
