"""A model as pure functions of its parameters, a nested dict of float32 arrays."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import Array

from vit_jax.models.config import ModelConfig
from vit_jax.models.mixer import Mixer
from vit_jax.models.model import Model
from vit_jax.models.resnet import ResNet
from vit_jax.models.sizes import Family
from vit_jax.models.vit import ViT

Params = dict[str, Any]

_MODELS: dict[Family, Callable[..., Model]] = {
    "vit": ViT,
    "hybrid": ViT,
    "resnet": ResNet,
    "mixer": Mixer,
}


def make_model(config: ModelConfig, seed: int) -> Model:
    """A model of any family, with fresh parameters."""
    return _MODELS[config.family](config, rngs=nnx.Rngs(seed))


def abstract_model(config: ModelConfig) -> Model:
    """The same with parameters that have shapes and types only; nothing is computed."""
    return nnx.eval_shape(lambda: make_model(config, 0))


def init_params(config: ModelConfig, seed: int) -> Params:
    """Fresh parameters."""
    return model_params(make_model(config, seed))


def model_params(model: Model) -> Params:
    """The parameters of a model."""
    return nnx.to_pure_dict(nnx.state(model))


def abstract_params(config: ModelConfig) -> Params:
    """The parameters' shapes and types, as `jax.ShapeDtypeStruct`; nothing is computed."""
    return jax.eval_shape(lambda: init_params(config, 0))


def apply_model(config: ModelConfig) -> Callable[..., Array]:
    """The forward pass: (params, images, **options of `Model.__call__`) -> logits."""
    graphdef = nnx.graphdef(abstract_model(config))
    return lambda params, images, **options: nnx.merge(graphdef, params)(images, **options)
