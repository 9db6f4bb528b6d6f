"""How many images a second a loader makes, by its number of workers."""

import math
import time
from dataclasses import dataclass

import jax
from jax.sharding import NamedSharding

from vit_jax.data.batches import Chunks
from vit_jax.data.config import DataConfig
from vit_jax.data.loader import Loader
from vit_jax.data.workers import PREFETCH
from vit_jax.experiments.benchmark.timing import Spread, cpu_seconds

# More steps than any benchmark takes.
_MANY = 2**20
# Batches that wait on the devices, are being put there, or are in the hands of who takes them.
_IN_FLIGHT = 4
# Chunks that Grain's threads make ahead.
_OF_THREADS = 8


@dataclass(frozen=True)
class Loaded:
    """What a loader did, a value for each round.

    Attributes:
      workers: processes; 0 is threads.
      images_per_second: over all workers.
      images_per_cpu_second: of the main process and all workers.
    """

    workers: int
    images_per_second: tuple[float, ...]
    images_per_cpu_second: tuple[float, ...]

    @property
    def rate(self) -> Spread:
        """Quartiles of images a second."""
        return Spread.of(self.images_per_second)

    @property
    def cpu_rate(self) -> float:
        """Images a CPU second, the median."""
        return Spread.of(self.images_per_cpu_second).median


def time_loader(
    chunks: Chunks,
    data: DataConfig,
    sharding: NamedSharding,
    workers: int,
    *,
    seconds: float,
    rounds: int,
) -> Loaded:
    """Takes batches as fast as they come. What was made ahead of the first round is not counted.

    Args:
      sharding: of a batch, over devices of this process.
      seconds: that a round takes at least.

    Raises:
      UserError: an image cannot be read, and the config does not skip it.
    """
    ahead = max(workers * PREFETCH, 0 if workers else _OF_THREADS)
    wall, cpu = [], []
    with Loader(
        chunks, sharding, start=0, stop=_MANY, workers=workers, on_error=data.on_error
    ) as loader:
        for _ in range(_IN_FLIGHT + math.ceil(ahead / chunks.chunks_per_batch)):
            next(loader)
        for _ in range(rounds):
            images, before, began = 0, cpu_seconds(), time.perf_counter()
            while not images or time.perf_counter() - began < seconds:
                jax.block_until_ready(next(loader))
                images += chunks.batch_size
            wall.append(images / (time.perf_counter() - began))
            cpu.append(images / max(cpu_seconds() - before, 1e-9))
    return Loaded(workers, tuple(wall), tuple(cpu))


def cores_needed(rate: float, cpu_rate: float) -> float:
    """Cores that keep a device busy.

    Args:
      rate: images a second that the device trains.
      cpu_rate: images that a core makes a second.
    """
    return rate / cpu_rate
