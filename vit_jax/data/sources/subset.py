"""Random subsets of a data set, of any size, each within the larger ones."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from vit_jax.data.sources.labels import labels_of_source
from vit_jax.data.sources.records import Record, Source, fetch, listing
from vit_jax.errors import UserError


class Subset:
    """The first `size` records of a source in an order that the seed shuffles.

    A smaller subset with the same seed lies within each larger one, as in the paper's study of 9M,
    30M and 90M images (Figure 4). Nothing is stored: the order is an index permutation.

    Raises:
      UserError: the source has fewer records.
    """

    def __init__(self, source: Source, size: int, seed: int) -> None:
        if size > len(source):
            raise UserError(
                f"config.data.subset={size} is more than the {len(source)} records of "
                f"{source.name}; take fewer, or leave it out"
            )
        self.name = f"{size} of {source.name}"
        self.class_names = source.class_names
        self.max_labels = source.max_labels
        self._source, self._size, self._seed = source, size, seed

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._size:
            raise IndexError(f"record {index} of {self._size}")
        return self._source[self._order[index]]

    def fetch(self, indices: Sequence[int]) -> Iterator[Record]:
        """The records at some indices, read side by side if the source can."""
        return fetch(self._source, [self._order[index] for index in indices])

    def labels(self) -> np.ndarray:
        """The label of each record, int32 [records]."""
        return labels_of_source(self._source)[[self._order[i] for i in range(self._size)]]

    def fingerprint(self) -> str:
        """Size and seed, and the fingerprint of the source."""
        return f"{self._size} by seed {self._seed} of {self._source.fingerprint()}"

    def listing(self) -> dict[str, str]:
        """That of the source; size and seed are in the config."""
        return listing(self._source)

    @functools.cached_property
    def _order(self) -> grain.MapDataset[int]:
        return grain.MapDataset.range(len(self._source)).seed(self._seed).shuffle()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_order"}
