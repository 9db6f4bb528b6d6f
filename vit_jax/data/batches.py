"""Batches as a pure function of the step: what a worker computes, without state or order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from vit_jax.data.images.errors import ImageError
from vit_jax.data.order import Balanced, Order, shuffled
from vit_jax.data.sources.records import Record, Source, fetch
from vit_jax.errors import UserError

# Makes uint8 [height, width, 3] from encoded bytes.
Transform = Callable[[bytes, Generator], np.ndarray]

# Workers hand over pieces of a batch no larger than this, so that a large batch needs little
# memory in a worker and all workers make it together.
_CHUNK_BYTES = 4 * 2**20
_CHUNK_ROWS = 128


class ArraySpec(NamedTuple):
    """Shape and type of one array of a batch."""

    shape: tuple[int, ...]
    dtype: np.dtype


def batch_spec(
    max_labels: int | None, batch_size: int, input_size: tuple[int, int]
) -> dict[str, ArraySpec]:
    """What a batch is; everything that makes or takes one reads it here.

    Args:
      max_labels: the source's; None for one label a record.
      batch_size: rows of the batch.
      input_size: height and width of the images in pixels.

    Returns:
      images: uint8 [batch_size, height, width, 3].
      labels: int32 [batch_size], or [batch_size, max_labels] padded with -1. -1 is no label.
      weights: float32 [batch_size]. 0 for a row that fills up the batch or whose image cannot be
        read, otherwise 1.
    """
    labels = () if max_labels is None else (max_labels,)
    return {
        "images": ArraySpec((batch_size, *input_size, 3), np.dtype(np.uint8)),
        "labels": ArraySpec((batch_size, *labels), np.dtype(np.int32)),
        "weights": ArraySpec((batch_size,), np.dtype(np.float32)),
    }


@dataclass(frozen=True)
class Chunks:
    """Pieces of the batches that one process needs; chunk i is the same whoever computes it.

    Row r of step s is the record at position s * batch_size + r of the order. What is random about
    it depends on (seed, s, r) alone.

    Attributes:
      size: height and width of the images in pixels.
      rows: the global row numbers that this process's devices hold, ascending.
      shuffle: True is an endless order, shuffled anew each epoch. False is the source's own order;
        each epoch is filled up to whole batches with rows of weight 0.
      classes: the records of each class, to shuffle so that each class comes equally often. None
        takes every record once in an epoch.
    """

    source: Source
    transform: Transform
    size: tuple[int, int]
    rows: np.ndarray
    batch_size: int
    seed: int
    shuffle: bool
    classes: tuple[np.ndarray, ...] | None = None

    @property
    def spec(self) -> dict[str, ArraySpec]:
        """The arrays of a whole batch, over all processes."""
        return batch_spec(self.source.max_labels, self.batch_size, self.size)

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk; the last one of a batch may have fewer."""
        height, width = self.size
        fitting = min(_CHUNK_BYTES // (height * width * 3), _CHUNK_ROWS)
        return int(np.clip(fitting, 1, len(self.rows)))

    @property
    def chunks_per_batch(self) -> int:
        """The number of chunks that hold this process's rows of one batch."""
        return -(-len(self.rows) // self.chunk_rows)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every record once, the last one filled up."""
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Chunk `index % chunks_per_batch` of step `index // chunks_per_batch`.

        Returns:
          The arrays that `batch_spec` describes, for this chunk's rows, and `errors`: one line for
          each image that cannot be read. Its row keeps its label and has weight 0.

        Raises:
          UserError: a label does not fit the source's `class_names` or `max_labels`.
        """
        step, chunk = divmod(index, self.chunks_per_batch)
        if not self.shuffle:
            step %= self.steps_per_epoch
        rows = self.rows[chunk * self.chunk_rows : (chunk + 1) * self.chunk_rows]
        arrays = {
            name: np.zeros((len(rows), *spec.shape[1:]), spec.dtype)
            for name, spec in self.spec.items()
        }
        arrays["labels"].fill(-1)
        errors = []
        order = self._order()
        if not self.shuffle:  # What fills up the last batch of an epoch comes last.
            rows = rows[step * self.batch_size + rows < len(self.source)]
        indices = [order[step * self.batch_size + int(row)] for row in rows]
        for i, (row, record) in enumerate(zip(rows, fetch(self.source, indices), strict=True)):
            _put_label(arrays["labels"][i : i + 1], record, self.source)
            try:
                if record.problem is not None:
                    raise ImageError(record.problem)
                rng = np.random.default_rng((self.seed, step, int(row)))
                arrays["images"][i] = self.transform(record.image, rng)
                arrays["weights"][i] = 1
            except ImageError as error:
                errors.append(f"{record.name}: {error}")
        return arrays | {"errors": tuple(errors)}

    def _order(self) -> Order:
        if not self.shuffle:
            return range(len(self.source))
        if self.classes is None:
            return shuffled(len(self.source), self.seed)
        return Balanced(self.classes, self.seed)


def _put_label(row: np.ndarray, record: Record, source: Source) -> None:
    """Writes a record's label or labels into its row: int32 [1] or [1, max_labels]."""
    labels = record.label if isinstance(record.label, tuple) else (record.label,)
    if len(labels) > row.size:
        raise UserError(
            f"{record.name} has {len(labels)} labels; {source.name} allows {row.size} at most"
        )
    # -1 is no label, and a source may have no class names.
    if source.class_names and not all(-1 <= label < len(source.class_names) for label in labels):
        raise UserError(
            f"{record.name}: label {max(labels, key=abs)} is not one of the "
            f"{len(source.class_names)} classes of {source.name}"
        )
    row.reshape(-1)[: len(labels)] = labels
