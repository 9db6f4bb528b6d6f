"""The order of records in training: which record a position of the endless sequence holds.

Nothing is stored but the classes' records: index permutations find any position at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import grain
import numpy as np

from vit_jax.data.sources.labels import labels_of_source
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError


class Order(Protocol):
    """Record indices by position, from 0 without end."""

    def __getitem__(self, position: int) -> int: ...


def shuffled(count: int, seed: int) -> Order:
    """All of `count` records once in each epoch, each epoch in an order of its own."""
    order: Order = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    return order


class Balanced:
    """Every class equally often, however many records it has.

    With k classes, each k positions from a multiple of k on hold every class once, in an order
    that the seed draws. So the first p positions hold a class floor(p / k) or ceil(p / k) times.
    The records of one class follow each other as in `shuffled`: each once before any comes again.

    Args:
      classes: the records of each class, none of them empty.
    """

    def __init__(self, classes: Sequence[np.ndarray], seed: int) -> None:
        self._classes = classes
        self._turns = shuffled(len(classes), seed)
        self._seed = seed

    def __getitem__(self, position: int) -> int:
        turn = self._turns[position]
        records = self._classes[turn]
        # Each class has its own seed, or classes of one size would go in step.
        own = int(np.random.SeedSequence((self._seed, turn)).generate_state(1)[0])
        return int(records[shuffled(len(records), own)[position // len(self._classes)]])


def records_by_class(source: Source) -> tuple[np.ndarray, ...]:
    """The records of each class that has any, int32; for `Balanced`.

    Raises:
      UserError: records have several labels, or none.
    """
    labels = labels_of_source(source)
    # Sorted once: a look at all labels for each of many classes would take hours.
    records = np.argsort(labels, kind="stable").astype(np.int32)
    bounds = np.searchsorted(labels[records], np.arange(len(source.class_names) + 1))
    classes = [records[start:end] for start, end in itertools.pairwise(bounds) if start < end]
    if not classes:
        raise UserError(
            f"config.data.sampling='balanced': no record of {source.name} has a label; leave it out"
        )
    return tuple(classes)
