"""Slices of splits of any source, such as `train[:90%]` or `train+test`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vit_jax.data.sources.labels import labels_of_source
from vit_jax.data.sources.records import Record, Source, fetch, listing
from vit_jax.data.sources.splits import SplitRange, locate


class Slices:
    """The records of some ranges of some splits, one range after the other.

    Args:
      name: names the slices in messages.
      splits: a source for each split; all have the same classes.
      ranges: what to take of each split.
    """

    def __init__(
        self, name: str, splits: Mapping[str, Source], ranges: Sequence[SplitRange]
    ) -> None:
        first = next(iter(splits.values()))
        self.name = name
        self.class_names = first.class_names
        self.max_labels = first.max_labels
        self._splits, self._ranges = splits, ranges
        if all(hasattr(split, "labels") for split in splits.values()):
            self.labels = self._labels  # Without it, whoever asks reads the records of the ranges.

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self._ranges)

    def __getitem__(self, index: int) -> Record:
        split, position = locate(self._ranges, index)
        return self._splits[split][position]

    def fetch(self, indices: Sequence[int]) -> Iterator[Record]:
        """The records at some indices: those of each split side by side, if it can."""
        places = [locate(self._ranges, index) for index in indices]
        of_split = {
            name: fetch(split, [position for s, position in places if s == name])
            for name, split in self._splits.items()
        }
        return (next(of_split[name]) for name, _ in places)

    def _labels(self) -> np.ndarray:
        """The label of each record, int32 [records]."""
        return np.concatenate(
            [labels_of_source(self._splits[s])[start:stop] for s, start, stop in self._ranges]
        )

    def fingerprint(self) -> str:
        """The ranges, and the fingerprints of what they are taken from."""
        ranges = "+".join(f"{split}[{start}:{stop}]" for split, start, stop in self._ranges)
        return "/".join([ranges, *(source.fingerprint() for source in self._splits.values())])

    def listing(self) -> dict[str, str]:
        """Those of the splits."""
        return {
            f"{split}/{name}": value
            for split, source in self._splits.items()
            for name, value in listing(source).items()
        }
