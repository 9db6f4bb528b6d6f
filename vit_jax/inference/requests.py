"""What is asked of a pass over a source, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from jax import Array

from vit_jax.data.sources.records import Source
from vit_jax.preprocessing import PreprocessingConfig

# What a caller calls its requests by.
K = TypeVar("K", bound=Any)

Arrays = dict[str, Array]
ArrayFunction = Callable[[Arrays], Arrays]


class Interrupted(Exception):
    """`should_stop()` was true in the middle of a pass. Nothing below the caller catches this."""


@dataclass(frozen=True)
class Request:
    """What an evaluator wants of one source.

    Both functions run on the devices, inside the pass's program. They get the arrays of one
    batch: `logits` [batch, classes], each of `outputs`, and `images`, `labels` and `weights` as
    `data.batches.batch_spec` describes them. Rows that fill up a batch and images that cannot be
    read have weight 0.

    Attributes:
      outputs: names of `Model.captured` that the functions need besides the logits.
      preprocessing: None is the model's.
      border: pixels that are cut from each side of an image before it is resized.
      sums: makes scalars, which are added up over the batches.
      rows: makes arrays whose first axis is the batch.
    """

    source: Source
    outputs: tuple[str, ...] = ()
    preprocessing: PreprocessingConfig | None = None
    border: int = 0
    sums: ArrayFunction | None = None
    rows: ArrayFunction | None = None


class Answer(NamedTuple):
    """What a request gets.

    Attributes:
      sums: totals over all batches, in float64; the same on every process.
      rows: by name, an array with one row for each image that can be read, in record order; on
        process 0 (the first of the mesh's) only, elsewhere empty.
      positions: int64 [rows], in the source, of the images that can be read; the same on every
        process.
    """

    sums: dict[str, float]
    rows: dict[str, np.ndarray]
    positions: np.ndarray


class BatchAnswer(NamedTuple, Generic[K]):
    """What all requests get of one batch, before it is added up.

    Attributes:
      start: position in the source of the first row.
      readable: bool [rows]; rows that only fill up the batch are cut off.
      sums, rows: by request, then by name. `rows` keeps unreadable images, whose values mean
        nothing; it is empty except on process 0.
    """

    start: int
    readable: np.ndarray
    sums: dict[K, dict[str, np.ndarray]]
    rows: dict[K, dict[str, np.ndarray]]
