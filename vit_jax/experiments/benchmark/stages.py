"""Where the time of input goes: reading, decoding, cropping, augmenting, batching, transfer.

One thread takes the same images through more and more of the way, by the functions that a loader's
workers call. A stage is the difference of two such times.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from vit_jax.data.batches import Chunks
from vit_jax.data.config import DataConfig
from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.transforms import TrainTransform, make_transform
from vit_jax.data.order import shuffled
from vit_jax.data.sources.records import Record, fetch
from vit_jax.errors import UserError
from vit_jax.experiments.benchmark.timing import Spread
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.weights.placing import place

STAGES = ("read", "decode", "crop and resize", "augment", "batch", "transfer")


class Times(NamedTuple):
    """Seconds of CPU time, over all threads of the process, and of the clock."""

    cpu: float
    wall: float


class Passed(NamedTuple):
    """Times of the same images.

    Attributes:
      read: of their first reading.
      decoded: of decoding them from memory; a box that is decoded alone counts here.
      cropped: of decoding, cropping and resizing.
      transformed: of the whole transform.
      read_again: of reading them once more.
      filled: of a chunk as workers make it, with pixels that are ready: which records come, reading
        them, and filling the arrays.
      transferred: of putting arrays on the device.
    """

    read: Times
    decoded: Times
    cropped: Times
    transformed: Times
    read_again: Times
    filled: Times
    transferred: Times


@dataclass(frozen=True)
class Stages:
    """Seconds of an image by stage, for each round.

    Attributes:
      images: that were timed, over all rounds.
    """

    cpu: dict[str, tuple[float, ...]]
    wall: dict[str, tuple[float, ...]]
    images: int

    def median(self, stage: str) -> Times:
        """The medians of a stage."""
        return Times(Spread.of(self.cpu[stage]).median, Spread.of(self.wall[stage]).median)

    @property
    def total(self) -> Times:
        """The sum of all stages' medians."""
        each = [self.median(stage) for stage in STAGES]
        return Times(sum(times.cpu for times in each), sum(times.wall for times in each))


def split(passed: Passed) -> dict[str, Times]:
    """The times of the stages."""
    return {
        "read": passed.read,
        "decode": passed.decoded,
        "crop and resize": _less(passed.cropped, passed.decoded),
        "augment": _less(passed.transformed, passed.cropped),
        "batch": _less(passed.filled, passed.read_again),
        "transfer": passed.transferred,
    }


def time_stages(
    chunks: Chunks,
    data: DataConfig,
    preprocessing: PreprocessingConfig,
    sharding: NamedSharding,
    *,
    seconds: float,
    rounds: int,
) -> Stages:
    """Times the stages of a config's data, in one thread.

    Args:
      chunks: what workers would make.
      data: the config that their transform was made from.
      sharding: of a batch, over devices of this process.
      seconds: that a round takes about; at least a chunk is taken.

    Raises:
      UserError: an image cannot be read, and the config does not skip it; or none can be read.
    """
    timer = _Timer(chunks, data, preprocessing, sharding)
    indices = iter(range(2**31))
    timer.time(next(indices))  # It imports, and opens files.
    found: list[tuple[int, dict[str, Times]]] = []
    for _ in range(rounds):
        began, images = time.perf_counter(), 0
        passed: list[dict[str, Times]] = []
        while not passed or time.perf_counter() - began < seconds:
            each, count = timer.time(next(indices))
            passed.append(split(each))
            images += count
        sums = {
            stage: Times(*map(sum, zip(*(each[stage] for each in passed), strict=True)))
            for stage in STAGES
        }
        found.append((images, sums))
    if not any(images for images, _ in found):
        raise UserError(f"none of the images of {chunks.source.name} can be read")
    return Stages(
        {stage: tuple(sums[stage].cpu / max(n, 1) for n, sums in found) for stage in STAGES},
        {stage: tuple(sums[stage].wall / max(n, 1) for n, sums in found) for stage in STAGES},
        sum(images for images, _ in found),
    )


# Encoded bytes, and the seed of what is random about them.
_Image = tuple[bytes, tuple[int, int, int]]


class _Timer:
    """Times one chunk after the other."""

    def __init__(
        self,
        chunks: Chunks,
        data: DataConfig,
        preprocessing: PreprocessingConfig,
        sharding: NamedSharding,
    ) -> None:
        self._chunks, self._data = chunks, data
        self._transform = make_transform(chunks.size, preprocessing, data)
        # The same transform, cut short.
        self._decode = dataclasses.replace(self._transform, operations=())
        plain = dataclasses.replace(
            data, affine=None, color_jitter=None, randaugment=None, erase=0.0
        )
        self._crop = make_transform(chunks.size, preprocessing, plain)
        self._is_augmented = data != plain
        ready = np.zeros((*chunks.size, 3), np.uint8)
        self._filling = dataclasses.replace(chunks, transform=lambda data, rng: ready)
        self._order = shuffled(len(chunks.source), chunks.seed)
        self._like = {
            name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=sharding)
            for name, spec in chunks.spec.items()
        }
        self._batch = {name: np.zeros(*spec) for name, spec in chunks.spec.items()}

    def time(self, index: int) -> tuple[Passed, int]:
        """The times of chunk `index`, and the number of its images that can be read."""
        chunks = self._chunks
        step, chunk = divmod(index, chunks.chunks_per_batch)
        rows = chunks.rows[chunk * chunks.chunk_rows :][: chunks.chunk_rows]
        places = [self._order[step * chunks.batch_size + int(row)] for row in rows]
        records: list[Record] = []
        read = _timed(lambda: records.extend(fetch(chunks.source, places)))
        readable = [
            # What is random is drawn as in a batch, so that the same boxes are cut.
            (record.image, (chunks.seed, step, int(row)))
            for record, row in zip(records, rows, strict=True)
            if self._is_readable(record)
        ]
        decoded = _time(self._decode, readable)
        cropped = transformed = _time(self._crop, readable)
        if self._is_augmented:
            transformed = _time(self._transform, readable)
        return Passed(
            read,
            decoded,
            cropped,
            transformed,
            _timed(lambda: list(fetch(chunks.source, places))),
            _timed(lambda: self._filling[index]),
            self._transfer(len(records)),
        ), len(readable)

    def _is_readable(self, record: Record) -> bool:
        try:
            if record.problem is not None:
                raise ImageError(record.problem)
            self._decode(record.image, np.random.default_rng(0))
        except ImageError as error:
            if self._data.on_error == "stop":
                raise UserError(
                    f"{record.name}: {error}; mend or remove it, or leave such images out: "
                    "--config.data.on_error=skip"
                ) from error
            return False
        return True

    def _transfer(self, images: int) -> Times:
        """The share of so many images in the time of a batch."""
        batch = _timed(lambda: jax.block_until_ready(place(self._batch, self._like)))
        share = images / self._chunks.batch_size
        return Times(batch.cpu * share, batch.wall * share)


def _time(transform: TrainTransform, images: Sequence[_Image]) -> Times:
    """The times of a transform; the generators are made before, as filling a batch counts them."""
    drawn = [(image, np.random.default_rng(seed)) for image, seed in images]

    def run() -> None:
        for image, rng in drawn:
            transform(image, rng)

    return _timed(run)


def _timed(call: Callable[[], Any]) -> Times:
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return Times(time.process_time() - cpu, time.perf_counter() - wall)


def _less(whole: Times, part: Times) -> Times:
    return Times(whole.cpu - part.cpu, whole.wall - part.wall)
