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
from vit_jax.weights.placing import place

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
    """A batch of random images and labels on the devices.

    Labels are classes of the model. A row that may have several has one.
    """
    rng = np.random.default_rng(0)
    shapes = {name: x.shape for name, x in program.batch.items()}
    labels = np.full(shapes["labels"], -1, np.int32)
    # A model without a head has no classes, and nothing reads its labels.
    classes = rng.integers(0, program.config.model.num_classes or 1, len(labels), np.int32)
    labels.reshape(len(labels), -1)[:, 0] = classes
    values = {
        "images": rng.integers(0, 256, shapes["images"], np.uint8),
        "labels": labels,
        "weights": np.ones(shapes["weights"], np.float32),
    }
    return place(values, program.batch)


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
