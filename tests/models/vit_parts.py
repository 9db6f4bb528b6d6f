"""Small ViTs with parameters far from their initial values, and what parts of them compute."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.models import ViT
from vit_jax.models.blocks import run as run_blocks
from vit_jax.models.functional import abstract_params, apply_model
from vit_jax.models.placement import OneDevice


def redrawn(shapes: Any, seed: int = 0) -> Any:
    """Parameters far from their initial values, so that each of them matters."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: rng.normal(0, 0.4, p.shape).astype(p.dtype), shapes)


def module_of(config: Any, params: Any) -> Any:
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0))))
    return nnx.merge(graphdef, params)


def random_images(config: Any, batch: int = 2, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-1, 1, (batch, *config.input_size, 3)), jnp.float32)


@functools.cache
def _forward(config: Any) -> Any:
    return jax.jit(apply_model(config))


def logits_of(config: Any, images: Any = None, key: Any = None) -> Any:
    images = random_images(config) if images is None else images
    return _forward(config)(redrawn(abstract_params(config)), images, key=key)


def features_of(model: Any, images: np.ndarray, **options: Any) -> Any:
    return model(images, capture=["features"], **options)[1]["features"]


def encode(model: Any, tokens: Any, key: Any) -> Any:
    return run_blocks(model.blocks, tokens, model.config, key, OneDevice(), ())[0]


def layer_norm(x: Any, norm: Any, epsilon: Any) -> Any:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * norm["scale"] + norm["bias"]


def gelu_tanh(x: Any) -> Any:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
