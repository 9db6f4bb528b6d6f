"""WebDataset tars as a source with random access, by an index of their samples."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.data.images.decoding import MEMORY_LIMIT
from vit_jax.data.sources.records import MAX_LABELS, Record
from vit_jax.data.sources.shard_files import common_directory, shards_at
from vit_jax.data.sources.shard_index import ShardIndex, open_index
from vit_jax.data.sources.shard_paths import TAR, shards_by_split
from vit_jax.data.sources.split_words import kind_of, own_names, say_once
from vit_jax.data.sources.splits import locate, split_names, split_ranges
from vit_jax.data.sources.tar import BLOCK, header_of
from vit_jax.data.sources.tar_labels import (
    find_classes,
    has_lists,
    label_counts,
    numbers_of_names,
)
from vit_jax.data.sources.tar_samples import LABEL_FILE, LABEL_KEYS, scan_samples
from vit_jax.errors import UserError
from vit_jax.storage.cache import Cache
from vit_jax.storage.pieces import Piece, PieceReader


class WebDatasetSource:
    """The images of one split, or slices of splits, of WebDataset tars.

    Args:
      dataset: a folder of tars, or a pattern of them (`shard_paths.py`).
      split: in TFDS syntax.
      label: where the labels are, as in `tar_samples.scan_samples`.
      max_labels: if labels stand in lists, the most that a record may have; None is 64.
      cache: keeps the images that were read.

    Raises:
      UserError: tars or labels are missing or damaged, or there is no such split.
    """

    reads_pieces = True

    def __init__(
        self,
        dataset: str,
        split: str,
        label: str | None = None,
        max_labels: int | None = None,
        cache: Cache | None = None,
    ) -> None:
        tars = shards_by_split(dataset, TAR)
        spec = own_names(split, tars, f"data set {dataset}")
        asked = tuple(tars) if "all" in split_names(spec) else split_names(spec)
        # Classes are those of `train`, whichever split is asked for.
        train = [name for name in tars if kind_of(name) == "train"] or list(tars)
        indexes = {
            name: _index(dataset, name, paths, label)
            for name, paths in tars.items()
            if name in asked or name in train
        }
        with_classes = [indexes[name] for name in train]
        sizes = {name: [len(indexes[name])] for name in tars if name in indexes}
        self.name = f"{dataset}/{split}"
        self._dataset = dataset
        self._ranges = split_ranges(spec, sizes, dataset)
        self._indexes = {name: indexes[name] for name in asked}
        self.class_names = find_classes(dataset, with_classes)
        is_list = any(map(has_lists, with_classes))
        self.max_labels = (max_labels or MAX_LABELS) if is_list else None
        self._reader = PieceReader(cache)
        self._check_labels(label)
        counts = ", ".join(f"{name} {count:,}" for name, (count,) in sizes.items())
        say_once(f"{dataset}: images: {counts}; {len(self.class_names):,} classes")

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self._ranges)

    def __getitem__(self, index: int) -> Record:
        return next(self.fetch([index]))

    def fetch(self, indices: Sequence[int]) -> Iterator[Record]:
        """The records at some indices, in that order; several are read at once."""
        places = []
        for index in indices:
            split, position = locate(self._ranges, index)
            places.append((split, *self._indexes[split].locate(position)))
        pieces = [self._piece(*place) for place in places]
        for (split, _, row), piece, data in zip(
            places, pieces, self._reader.read(pieces), strict=True
        ):
            yield _record(piece, self._label(split, row), data)

    def labels(self) -> np.ndarray:
        """The label of each record, int32 [records], where each has one."""
        assert self.max_labels is None
        if not self.class_names:
            return np.full(len(self), -1, np.int32)
        found = []
        for split, start, stop in self._ranges:
            index = self._indexes[split]
            last = index.columns["label_ends"][index.rows()[start:stop]] - np.uint64(1)
            found.append(self._numbers[split][index.columns["labels"][last]])
        return np.concatenate(found)

    def fingerprint(self) -> str:
        """A hash of the classes, the ranges, and each image's place and label."""
        digest = hashlib.blake2b(repr((self._ranges, self.class_names)).encode(), digest_size=8)
        for split, index in self._indexes.items():
            for shard, (first, stop) in zip(index.shards, index.row_ranges(), strict=True):
                digest.update(f"{split}/{shard.name}".encode())
                for values in (
                    *(index.columns["starts"][first:stop], index.columns["stops"][first:stop]),
                    *(index.columns["is_list"][first:stop],),
                    self._numbers[split][_labels(index, first, stop)],
                ):
                    digest.update(values.tobytes())
        return digest.hexdigest()

    def listing(self) -> dict[str, str]:
        """The sizes of the tars by their names, and the fingerprint."""
        sizes = {
            f"{split}/{shard.name}": f"{shard.size} bytes"
            for split, index in self._indexes.items()
            for shard in index.shards
        }
        return {"records": self.fingerprint(), **sizes}

    def _piece(self, split: str, number: int, row: int) -> Piece:
        """An image and the header before it, which names it and shows that the index fits."""
        index = self._indexes[split]
        shard, start = index.shards[number], int(index.columns["starts"][row])
        stop = min(int(index.columns["stops"][row]), start + MEMORY_LIMIT)
        return Piece(shard.path, start - BLOCK, stop, shard.version)

    def _label(self, split: str, row: int) -> int | tuple[int, ...]:
        index = self._indexes[split]
        labels = tuple(self._numbers[split][_labels(index, row, row + 1)].tolist())
        if self.max_labels is None:
            return labels[0] if labels else -1
        if len(labels) > self.max_labels:
            raise UserError(
                f"{self.name}: a sample has {len(labels)} labels, above "
                f"config.data.max_labels={self.max_labels}; raise it (a run that resumes may do "
                "so too)"
            )
        return labels

    @functools.cached_property
    def _numbers(self) -> Mapping[str, np.ndarray]:
        """By split, the class that each name of its index means."""
        return {
            split: numbers_of_names(index, self.class_names, f"{self._dataset}/{split}")
            for split, index in self._indexes.items()
        }

    def _check_labels(self, label: str | None) -> None:
        """Refuses labels that are in no class, lists beside single labels, and samples without."""
        assert self._numbers is not None
        if self.max_labels is not None:
            return
        for split, index in self._indexes.items():
            if has_lists(index):
                raise UserError(
                    f"{self._dataset}/{split}: its labels stand in lists, and those of train do "
                    "not; write them alike"
                )
            without = np.flatnonzero(label_counts(index) == 0)
            if len(without) == (len(index) if not self.class_names else 0):
                continue
            number, row = index.locate(int(without[0]))
            (first,) = self._reader.read([self._piece(split, number, row)])
            wanted = f"{label!r}" if label else f".{LABEL_FILE}, or .json with {LABEL_KEYS[0]!r}"
            raise UserError(
                f"{_record(self._piece(split, number, row), -1, first).name} has no label "
                f"({wanted}), nor have {len(without) - 1:,} more; name another one by "
                "--config.data.label=EXTENSION or KEY"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_numbers"}


def webdataset_splits(dataset: str) -> tuple[str, ...]:
    """Names of the splits that tars have.

    Raises:
      UserError: there are no tars, or some are missing.
    """
    return tuple(shards_by_split(dataset, TAR))


def _index(dataset: str, split: str, paths: Sequence[str], label: str | None) -> ShardIndex:
    directory = common_directory(paths)
    shards = shards_at(directory, paths, dataset, "restore it, or name the other tars")
    word = "" if label is None else f".{label.replace('/', '.')}"
    name = f"{split}{word}.tar.index"
    return open_index(directory, name, shards, functools.partial(scan_samples, label=label))


def _labels(index: ShardIndex, first: int, stop: int) -> np.ndarray:
    """What the index states as labels of the rows `first <= row < stop`."""
    ends = index.columns["label_ends"]
    begin = int(ends[first - 1]) if first else 0
    end = int(ends[stop - 1]) if stop > first else begin
    return index.columns["labels"][begin:end]


def _record(piece: Piece, label: int | tuple[int, ...], data: bytes | OSError | EOFError) -> Record:
    at_byte = f"{piece.path} at byte {piece.start:,}"
    if not isinstance(data, bytes):
        return Record(b"", label, at_byte, str(data))
    header = header_of(data[:BLOCK])
    if header is None:
        return Record(b"", label, at_byte, "there is no header of a tar here: it was changed")
    return Record(data[BLOCK:], label, f"{piece.path}/{header.name}")
