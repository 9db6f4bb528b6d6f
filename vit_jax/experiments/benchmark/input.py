"""The benchmark of input: stages in one thread, then the loader with more and more workers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vit_jax.data.batches import Chunks
from vit_jax.data.images.transforms import make_transform
from vit_jax.data.order import records_by_class
from vit_jax.data.sources.records import Source
from vit_jax.experiments.benchmark.loading import Loaded, time_loader
from vit_jax.experiments.benchmark.stages import Stages, time_stages
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import batch_sharding
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import assemble, open_training

# A larger batch is made of as many chunks as are needed, and would only take longer to wait for.
_LARGEST_BATCH = 256


@dataclass
class InputReport:
    """What was measured of a config's input so far.

    Attributes:
      seconds: of a round.
      rates: images a second that a device trains, by what says so.
      cores: that this process may use.
    """

    config: TrainConfig
    source: Source
    size: tuple[int, int]
    batch_size: int
    seconds: float
    rounds: int
    rates: Mapping[str, float] = field(default_factory=dict)
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    stages: Stages | None = None
    loaded: list[Loaded] = field(default_factory=list)
    is_complete: bool = False

    @property
    def cpu_rate(self) -> float | None:
        """Images a CPU second of the fastest loader."""
        if not self.loaded:
            return None
        return max(self.loaded, key=lambda each: each.rate.median).cpu_rate


def open_input(
    config: TrainConfig, *, seconds: float, rounds: int, rates: Mapping[str, float]
) -> InputReport:
    """Opens the training data of a config.

    Raises:
      UserError: the data is missing, or not as the config says.
    """
    source = open_training(config.data)
    batch_size = min(config.data.batch_size, _LARGEST_BATCH)
    size = config.model.input_size
    return InputReport(config, source, size, batch_size, seconds, rounds, rates)


def run_input(report: InputReport, workers: Sequence[int], say: Callable[[str], object]) -> None:
    """Measures the stages, then the loader with each number of workers.

    Args:
      report: gets the results as soon as they are there.
      say: gets a line before each measurement.

    Raises:
      UserError: an image cannot be read, and the config does not skip it.
    """
    config = report.config
    preprocessing = _preprocessing(config, report.source)
    sharding = batch_sharding(_mesh())
    balanced = config.data.sampling == "balanced"
    chunks = Chunks(
        report.source,
        make_transform(report.size, preprocessing, config.data),
        size=report.size,
        rows=np.arange(report.batch_size),
        batch_size=report.batch_size,
        seed=config.seed,
        shuffle=True,
        classes=records_by_class(report.source) if balanced else None,
    )
    say("timing the stages in one thread ...")
    length: Any = {"seconds": report.seconds, "rounds": report.rounds}
    report.stages = time_stages(chunks, config.data, preprocessing, sharding, **length)
    for count in workers:
        say(f"timing the loader with {count} workers ...")
        report.loaded.append(time_loader(chunks, config.data, sharding, count, **length))
    report.is_complete = True


def worker_counts(cores: int) -> list[int]:
    """Threads, then powers of two up to the number of cores, and that number."""
    powers = [2**power for power in range(cores.bit_length()) if 2**power < cores]
    return [0, *powers, cores]


def _preprocessing(config: TrainConfig, source: Source) -> PreprocessingConfig:
    """That of the weights to start from, otherwise the model's."""
    model = config.model.completed()
    if config.init_from is not None:
        model = assemble(config, _mesh(), source).model
    assert model.preprocessing is not None
    return model.preprocessing


def _mesh() -> Mesh:
    return make_mesh(MeshConfig(), jax.local_devices()[:1])
