"""Batches as a pure function of the step: what a worker computes, without state or order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from numpy.random import Generator

from vit_jax.data.images.transforms import ImageError
from vit_jax.data.sources.records import Source

# Makes uint8 [height, width, 3] from encoded bytes.
Transform = Callable[[bytes, Generator], np.ndarray]

# Workers hand over pieces of a batch of at most so many bytes and rows, so that a large batch needs
# little memory in a worker and is made by all of them together.
_CHUNK_BYTES = 4 * 2**20
_CHUNK_ROWS = 128


@dataclass(frozen=True)
class Chunks:
    """Pieces of the batches that one process needs; chunk i is the same whoever computes it.

    Row r of step s is the record at position s * batch_size + r of the order; what is random
    about it depends on (seed, s, r) alone.

    Attributes:
      rows: the global row numbers that this process's devices hold, ascending.
      shuffle: True is an endless order, shuffled anew each epoch; False is the source's own, each
        epoch filled up with rows of weight 0 to whole batches.
      max_labels: the source's; None for one label a record.
      needs_label: whether a record without any label is an error of its row.
    """

    source: Source
    transform: Transform
    size: tuple[int, int]
    rows: np.ndarray
    batch_size: int
    seed: int
    shuffle: bool
    max_labels: int | None = None
    needs_label: bool = False

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk; the last one of a batch may have fewer."""
        height, width = self.size
        fitting = min(_CHUNK_BYTES // (height * width * 3), _CHUNK_ROWS)
        return int(np.clip(fitting, 1, len(self.rows)))

    @property
    def chunks_per_batch(self) -> int:
        """Chunks that hold this process's rows of one batch."""
        return -(-len(self.rows) // self.chunk_rows)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every record once, the last one filled up."""
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Chunk `index % chunks_per_batch` of step `index // chunks_per_batch`.

        Returns:
          images: uint8 [rows, height, width, 3]; labels: int32 [rows], or [rows, max_labels]
          padded with -1; weights: float32 [rows], 0 for a row that is filled up or cannot be used;
          errors: a line for each of the latter.
        """
        step, chunk = divmod(index, self.chunks_per_batch)
        if not self.shuffle:
            step %= self.steps_per_epoch
        rows = self.rows[chunk * self.chunk_rows : (chunk + 1) * self.chunk_rows]
        images = np.zeros((len(rows), *self.size, 3), np.uint8)
        labels = np.zeros(len(rows), np.int32)
        if self.max_labels is not None:
            labels = np.full((len(rows), self.max_labels), -1, np.int32)
        weights = np.zeros(len(rows), np.float32)
        errors = []
        order = self._order()
        for i, row in enumerate(rows):
            position = step * self.batch_size + int(row)
            if not self.shuffle and position >= len(self.source):
                continue
            record = self.source[order[position]]
            if self.needs_label and record.label == ():
                errors.append(
                    f"{record.name}: no label, without which loss='softmax' has no target"
                )
                continue
            if isinstance(record.label, tuple):
                labels[i, : len(record.label)] = record.label
            else:
                labels[i] = record.label
            try:
                rng = np.random.default_rng((self.seed, step, int(row)))
                images[i] = self.transform(record.image, rng)
                weights[i] = 1
            except ImageError as error:
                errors.append(f"{record.name}: {error}")
        return {"images": images, "labels": labels, "weights": weights, "errors": tuple(errors)}

    def _order(self) -> grain.MapDataset[int]:
        positions = grain.MapDataset.range(len(self.source))
        # Shuffled by an index permutation: nothing is stored, and any position is at hand at once.
        return positions.seed(self.seed).shuffle().repeat() if self.shuffle else positions
