"""A model as pure functions of its parameters, a nested dict of float32 arrays."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import Array

from vit_jax.models.config import ModelConfig
from vit_jax.models.vit import ViT

Params = dict[str, Any]


def init_params(config: ModelConfig, seed: int) -> Params:
    """Fresh parameters."""
    return model_params(ViT(config, rngs=nnx.Rngs(seed)))


def model_params(model: ViT) -> Params:
    """The parameters of a model."""
    return nnx.to_pure_dict(nnx.state(model))


def abstract_params(config: ModelConfig) -> Params:
    """The parameters' shapes and types, as `jax.ShapeDtypeStruct`; nothing is computed."""
    return jax.eval_shape(lambda: init_params(config, 0))


def apply_model(config: ModelConfig) -> Callable[..., Array]:
    """The forward pass: (params, images, **options of `ViT.__call__`) -> logits."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0))))
    return lambda params, images, **options: nnx.merge(graphdef, params)(images, **options)
