"""A model as pure functions of its parameters, a nested dict of float32 arrays."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import Array

from vit_jax.models.config import ModelConfig, family_of
from vit_jax.models.model import Model

# Nested by name. The leaves are arrays: JAX's, NumPy's, stored ones, or their shapes.
Params = dict[str, Any]


def make_model(config: ModelConfig, seed: int) -> Model:
    """Makes a model of any family, with fresh parameters."""
    model = family_of(config).make(config, rngs=_Rngs(seed))
    assert isinstance(model, Model)
    return model


class _Stream(nnx.RngStream):
    """The keys of flax's own stream.

    But flax's asks a traced count for its sharding, which walks through all that was traced before:
    the time to trace a ResNet grows with the square of its units.
    """

    def __call__(self) -> Array:
        key = jax.random.fold_in(self.key[...], self.count[...])
        self.count.set_value(self.count[...] + 1)
        return key


class _Rngs(nnx.Rngs):
    def __init__(self, seed: int) -> None:
        self.default = _Stream(seed, tag="default")


def abstract_model(config: ModelConfig) -> Model:
    """Makes a model whose parameters have only shapes and types; computes nothing."""
    return nnx.eval_shape(lambda: make_model(config, 0))


def init_params(config: ModelConfig, seed: int) -> Params:
    """Draws fresh parameters."""
    return model_params(make_model(config, seed))


def model_params(model: Model) -> Params:
    """Returns the parameters of a model."""
    return nnx.to_pure_dict(nnx.state(model))


def abstract_params(config: ModelConfig) -> Params:
    """Returns the parameters' shapes and types, as `jax.ShapeDtypeStruct`; computes nothing."""
    _, params = _abstract(config)
    # A dictionary of the caller's own, who may change it.
    return jax.tree.map(lambda leaf: leaf, params)


def bind_model(config: ModelConfig) -> Callable[[Params], Model]:
    """Returns a function from parameters to the model that has them, to use its parts.

    The function is pure and may be called within a jitted function:

        bind = bind_model(config)
        patches = bind(params).patches(images)

    Parameters that no model has, such as an objective's own, must be left out.
    """
    graphdef, _ = _abstract(config)
    return lambda params: nnx.merge(graphdef, params)


def apply_part(config: ModelConfig, name: str) -> Callable[..., Any]:
    """Returns one part of the forward pass as a function: (params, *args, **options) -> result.

    Args:
      name: `patches`, `tokens`, `encode`, `pool` or `classify`; see `Model`.
    """
    bind = bind_model(config)
    return lambda params, *args, **options: getattr(bind(params), name)(*args, **options)


def apply_model(config: ModelConfig) -> Callable[..., Array]:
    """Returns the forward pass: (params, images, **options of `Model.__call__`) -> logits."""
    bind = bind_model(config)
    return lambda params, images, **options: bind(params)(images, **options)


def _abstract(config: ModelConfig) -> tuple[nnx.GraphDef[Model], Params]:
    """The structure of a model, and the shapes of its parameters."""
    try:
        hash(config)
    except TypeError:  # Made by hand, with a list in the place of a tuple.
        return _trace(config)
    return _trace_once(config)


def _trace(config: ModelConfig) -> tuple[nnx.GraphDef[Model], Params]:
    model = abstract_model(config)
    return nnx.graphdef(model), model_params(model)


# A run asks for one model's several times, and a list of models for the same ones again.
_trace_once = functools.lru_cache(maxsize=512)(_trace)
