"""A training step on random images, to time and to compile without data."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vit_jax.data.config import DataConfig
from vit_jax.models.config import ModelConfig
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.training.config import TrainConfig
from vit_jax.training.optimizer import OptimizerConfig
from vit_jax.training.program import Program, make_program
from vit_jax.training.step import TrainState

_STEPS = 10_000
CLASSES = 1000
ADAMW = OptimizerConfig(
    lr=1e-3, weight_decay=0.1, clip_norm=1.0, momentum_dtype="bfloat16", warmup_steps=10
)


def synthetic_program(
    name: str,
    batch_size: int,
    mesh: MeshConfig,
    devices: Any = None,
    optimizer: OptimizerConfig = ADAMW,
    **model: Any,
) -> Program:
    """The step of a model; by default that of AdamW, its first moment in bfloat16, with clipping.

    Args:
      name: of the model, such as "ViT-B/16".
      batch_size: over all devices.
      devices: those of the mesh, such as a TPU's that is not here; None takes all at hand.
      model: further fields of `ModelConfig`.
    """
    config = TrainConfig(
        ModelConfig(name, num_classes=CLASSES, **model).completed(),
        DataConfig("synthetic", batch_size=batch_size),
        optimizer,
        total_steps=_STEPS,
        mesh=mesh,
    )
    return make_program(config, _STEPS, make_mesh(mesh, devices))


def random_batch(program: Program) -> dict[str, jax.Array]:
    """A batch of random images and labels on the devices."""
    rng = np.random.default_rng(0)
    return {
        name: jax.device_put(_random(rng, x.shape, x.dtype), x.sharding)
        for name, x in program.batch.items()
    }


def seconds_a_step(
    step: Callable[..., Any],
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    warmup: int,
    steps: int,
) -> float:
    """Mean seconds of steps on one batch, after some that are not timed; uses up the state."""
    for _ in range(warmup):
        state, metrics = step(state, batch, ())
    jax.block_until_ready(metrics)
    began = time.perf_counter()
    for _ in range(steps):
        state, metrics = step(state, batch, ())
    jax.block_until_ready(metrics)
    return (time.perf_counter() - began) / steps


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if dtype == np.float32:
        return np.ones(shape, dtype)
    return rng.integers(0, 256 if dtype == np.uint8 else CLASSES, shape, dtype)
