"""A trial of a run's step on the devices at hand: how long it takes, before the run is opened."""

import os
import time
from typing import NamedTuple

import jax
import numpy as np

from vit_jax.analysis.macs import count_macs
from vit_jax.inference.memory import (
    OutOfMemory,
    ProgramMemory,
    check_memory,
    noticing_lack_of_memory,
)
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params, apply_model
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import initial_params, make_chunks, make_evaluations, prepare

# What the speed of matrix products is measured with: a forward pass that takes part of a second on
# a laptop's CPU.
_MEASURED = ModelConfig("ViT-Ti/16", image_size=224, num_classes=0)
_MEASURED_BATCH = 8
# A step takes about three times the work of a pass over its images (arXiv 2104.10350 counts so).
_PASS_OF_A_STEP = 1 / 3
_STEPS = 2


class Trial(NamedTuple):
    """Times in seconds.

    Attributes:
      compile_seconds: of the step.
      step_seconds: a step, decoding included.
      image_seconds: an image in a pass without gradients, decoding included.
      evaluated: images of all evaluations.
    """

    compile_seconds: float
    step_seconds: float
    image_seconds: float
    evaluated: int


def fits(config: TrainConfig) -> bool:
    """Whether the step of a config fits into the devices' memory, as far as they tell it.

    Raises:
      UserError: as `setup.prepare`.
    """
    setup = prepare(config)
    try:
        with noticing_lack_of_memory():
            memory = ProgramMemory.of(setup.program.compile())
        check_memory(memory, jax.tree.leaves(setup.program.state), setup.mesh)
    except OutOfMemory:
        return False
    return True


def macs_per_second() -> float:
    """How many multiply-adds a second a device of this process does in a small ViT's forward."""
    model = _MEASURED.completed()
    params = jax.tree.map(lambda x: np.full(x.shape, 0.01, x.dtype), abstract_params(model))
    images = np.zeros((_MEASURED_BATCH, *model.input_size, 3), np.float32)
    params, images = jax.device_put((params, images))
    forward = jax.jit(apply_model(model)).lower(params, images).compile()
    times = []
    for _ in range(_STEPS):
        began = time.perf_counter()
        jax.block_until_ready(forward(params, images))
        times.append(time.perf_counter() - began)
    return sum(count_macs(model).values()) * _MEASURED_BATCH / min(times)


def measure(config: TrainConfig) -> Trial:
    """Compiles the step of a config, takes a few on its first batch, and throws all away.

    Raises:
      UserError: as `setup.prepare`.
    """
    setup = prepare(config)
    chunks = make_chunks(setup)
    began = time.perf_counter()
    pieces = [chunks[i] for i in range(chunks.chunks_per_batch)]
    decoding = (time.perf_counter() - began) / len(os.sched_getaffinity(0))
    batch = {
        name: jax.device_put(np.concatenate([piece[name] for piece in pieces]), x.sharding)
        for name, x in setup.program.batch.items()
    }
    state = setup.program.start(initial_params(setup))
    began = time.perf_counter()
    step = setup.program.compile()
    compiled = time.perf_counter() - began
    times = []
    for _ in range(_STEPS):
        began = time.perf_counter()
        state, metrics = step(state, batch, setup.program.objective.fixed)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - began)
    seconds, rows = min(times) + decoding, config.data.batch_size
    with make_evaluations(setup) as evaluations:
        evaluated = sum(len(source) for source in evaluations.sources().values())
    return Trial(
        compile_seconds=compiled,
        step_seconds=seconds,
        image_seconds=(min(times) * _PASS_OF_A_STEP + decoding) / rows,
        evaluated=evaluated,
    )
