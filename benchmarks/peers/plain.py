"""The work by the plain ViT of `benchmarks/plain_vit.py`."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from benchmarks.machine import versions
from benchmarks.peers.attention import AttentionAlone
from benchmarks.peers.case import CLIP_NORM, RATE, SHOWN, WEIGHT_DECAY, Case
from benchmarks.plain_vit import PlainViT, plain_adamw, plain_params, plain_vit, train_step


def _start(case: Case, params: Any, scan: bool) -> tuple[PlainViT, Any]:
    model = plain_vit(case.config, scan=scan)
    if params is None:
        images = jnp.zeros((1, *case.config.input_size, 3))
        return model, jax.jit(model.init)(jax.random.key(0), images)["params"]
    return model, jax.device_put(plain_params(params, scan=scan))


def describe() -> tuple[str, str, str]:
    """Platform, device and versions."""
    return (
        jax.default_backend(),
        jax.devices()[0].device_kind,
        f"{versions()}, flax {flax.__version__}",
    )


class Training:
    """Steps of the plain model."""

    def __init__(self, case: Case, params: Any, scan: bool):
        model, self._params = _start(case, params, scan)
        optimizer = plain_adamw(RATE, weight_decay=WEIGHT_DECAY, clip_norm=CLIP_NORM)
        self._opt_state = jax.jit(optimizer.init)(self._params)
        self._step = jax.jit(train_step(model, optimizer), donate_argnums=(0, 1))
        self._batch = jax.device_put(case.batch())

    def run(self, count: int) -> list[float]:
        """See `Work`."""
        losses = []
        for _ in range(count):
            self._params, self._opt_state, loss = self._step(
                self._params, self._opt_state, *self._batch
            )
            losses.append(loss)
        jax.block_until_ready((self._params, losses))
        return [float(loss) for loss in losses]


class Forward:
    """The jitted forward pass."""

    def __init__(self, case: Case, params: Any, scan: bool):
        model, params = _start(case, params, scan)

        def forward(params: Any, images: Array) -> Array:
            logits = model.apply({"params": params}, images.astype(jnp.float32) / 127.5 - 1)
            assert isinstance(logits, Array)
            return logits

        self._forward, self._args = jax.jit(forward), (params, jax.device_put(case.batch()[0]))

    def run(self, count: int) -> list[float]:
        """See `Work`."""
        for _ in range(count):
            logits = self._forward(*self._args)
        jax.block_until_ready(logits)
        return np.asarray(logits)[0, :SHOWN].tolist()


def make(case: Case, params: Any, *, scan: bool = False) -> Training | Forward | AttentionAlone:
    """See `Contender`.

    Args:
      scan: loops over the blocks.
    """
    if case.job == "attention":
        return AttentionAlone(case, nn.dot_product_attention)
    return (Training if case.job == "train" else Forward)(case, params, scan)
