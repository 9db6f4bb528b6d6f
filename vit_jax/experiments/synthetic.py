"""A training step on data that is made up, for the benchmarks of speed and of compilation."""

import time
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from vit_jax.data.config import DataConfig
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.training.config import TrainConfig
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from vit_jax.training.program import batch_shapes, jit_step, start_state, state_shapes

CLASSES = 1000


class SyntheticStep:
    """AdamW with its first moment in bfloat16 and clipped gradients, on random images.

    Attributes:
      mesh: over `devices`, or over all at hand.
    """

    def __init__(
        self,
        name: str,
        batch_size: int,
        mesh: MeshConfig,
        devices: Any = None,
        **model: Any,
    ):
        self.config = TrainConfig(
            ModelConfig(name, num_classes=CLASSES, **model).following(),
            DataConfig("synthetic", batch_size=batch_size),
            OptimizerConfig(
                lr=1e-3, weight_decay=0.1, clip_norm=1.0, momentum_dtype="bfloat16", warmup_steps=10
            ),
            total_steps=10_000,
            mesh=mesh,
        )
        self.mesh: Mesh = make_mesh(mesh, devices)
        schedule = make_schedule(self.config.optimizer, 10_000)
        params = abstract_params(self.config.model)
        self.optimizer: optax.GradientTransformation = make_optimizer(
            self.config.optimizer, schedule, params
        )

        self._shapes = state_shapes(self.config, self.optimizer, self.mesh)

    def compile(self) -> jax.stages.Compiled:
        """Traces and compiles the step; nothing is allocated."""
        step = jit_step(self.config, self.optimizer, self.mesh, self._shapes)
        return step.lower(self._shapes, batch_shapes(self.config, self.mesh)).compile()

    def start(self) -> tuple[jax.stages.Compiled, Any, Any]:
        """The compiled step, a state and a batch on the devices."""
        rng = np.random.default_rng(0)
        batch = {
            name: jax.device_put(_random(rng, x.shape, x.dtype), x.sharding)
            for name, x in batch_shapes(self.config, self.mesh).items()
        }
        return self.compile(), start_state(self.config, self.optimizer, self._shapes), batch


def seconds_a_step(step: Any, state: Any, batch: Any, *, warmup: int, steps: int) -> float:
    """Mean time of steps on one batch, after a few that are not timed; the state is used up."""
    for _ in range(warmup):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    began = time.perf_counter()
    for _ in range(steps):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    return (time.perf_counter() - began) / steps


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if dtype == np.float32:
        return np.ones(shape, dtype)
    return rng.integers(0, 256 if dtype == np.uint8 else CLASSES, shape, dtype)
