"""Parquet files of images, as Hugging Face's `datasets` writes them and as the Hub serves them.

A row has an image, as its encoded bytes or as a struct of `bytes` and `path`, and a label: the
number of a class that the file's metadata names, a number, a name, or a list of these.

Parquet has no random access to a row: its smallest unit is a group of rows, about a hundred images
in files of the Hub. So a process keeps the groups that it has read last, and puts all images of a
group into the cache of pieces if there is one. The first epoch in shuffled order then reads each
group about once, and without a cache nearly each image costs the reading of its group.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from vit_jax.data.sources.parquet_columns import Columns, class_numbers, find_columns
from vit_jax.data.sources.parquet_file import checked_parquet, open_parquet
from vit_jax.data.sources.records import MAX_LABELS, Record
from vit_jax.data.sources.shard_paths import PARQUET, shards_by_split
from vit_jax.data.sources.split_words import kind_of, own_names, say_once
from vit_jax.data.sources.splits import locate, split_names, split_ranges
from vit_jax.errors import UserError
from vit_jax.storage import objects
from vit_jax.storage.cache import Cache

# Bytes of the groups of rows that one process keeps.
_KEPT_BYTES = 2**28
_THREADS = 16


class _File(NamedTuple):
    """A file of a split.

    Attributes:
      version: as `storage.objects.version`.
      groups: the number of rows up to the end of each group, int64 [groups].
    """

    path: str
    version: str
    size: int
    groups: np.ndarray


class ParquetSource:
    """The images of one split, or slices of splits, of Parquet files.

    Args:
      dataset: a folder of files, or a pattern of them (`shard_paths.py`).
      split: in TFDS syntax.
      label: the column of labels; None is the one that the file's metadata or its name says.
      max_labels: if labels stand in lists, the most that a record may have; None is 64.
      cache: keeps the images of each group that was read.

    Raises:
      UserError: files or columns are missing or damaged, or there is no such split.
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
        _require_pyarrow(dataset)
        paths = shards_by_split(dataset, PARQUET)
        spec = own_names(split, paths, f"data set {dataset}")
        asked = tuple(paths) if "all" in split_names(spec) else split_names(spec)
        train = next((name for name in paths if kind_of(name) == "train"), asked[0])
        self._columns = find_columns(dataset, paths[train][0], label)
        # Classes are those of `train`, whichever split is asked for.
        opened = {name: _open_all(paths[name], self._columns) for name in {*asked, train}}
        self.class_names, numbers = class_numbers(
            dataset, self._columns, train, {name: each.labels for name, each in opened.items()}
        )
        self._files = {name: opened[name].files for name in asked}
        self._labels = {name: numbers[name] for name in asked}
        sizes = {
            name: [sum(int(f.groups[-1]) for f in each.files)] for name, each in opened.items()
        }
        self.name = f"{dataset}/{split}"
        self._ranges = split_ranges(spec, sizes, dataset)
        self.max_labels = (max_labels or MAX_LABELS) if self._columns.has_lists else None
        self._cache = cache
        counts = ", ".join(f"{name} {count:,}" for name, (count,) in sorted(sizes.items()))
        say_once(f"{dataset}: images: {counts}; {len(self.class_names):,} classes")

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self._ranges)

    def __getitem__(self, index: int) -> Record:
        return next(self.fetch([index]))

    def fetch(self, indices: Sequence[int]) -> Iterator[Record]:
        """The records at some indices, in that order; what is in the cache is not read again."""
        for index in indices:
            split, row = locate(self._ranges, index)
            file, group, position = self._place(split, row)
            name = f"{file.path}[{row}]"
            label = self._label(split, row, name)
            try:
                image = self._image(file, group, position)
            except UserError:
                raise
            except Exception as error:  # Damaged pages make pyarrow raise nearly anything.
                reason = " ".join(str(error).split())[:200]
                yield Record(b"", label, name, f"cannot read its group of rows ({reason})")
                continue
            if not image:
                yield Record(b"", label, name, "the row holds no bytes of an image")
            else:
                yield Record(image, label, name)

    def labels(self) -> np.ndarray:
        """The label of each record, int32 [records], where each has one."""
        assert self.max_labels is None
        return np.concatenate(
            [self._labels[split][start:stop] for split, start, stop in self._ranges]
        )

    def fingerprint(self) -> str:
        """A hash of the classes, the ranges, the labels, and the groups of rows of each file."""
        digest = hashlib.blake2b(repr((self._ranges, self.class_names)).encode(), digest_size=8)
        for split, files in self._files.items():
            for file in files:
                digest.update(f"{split}/{os.path.basename(file.path)}".encode())
                digest.update(file.groups.tobytes())
            labels = self._labels[split]
            digest.update(labels.tobytes() if self.max_labels is None else repr(labels).encode())
        return digest.hexdigest()

    def listing(self) -> dict[str, str]:
        """The sizes of the files by their names, and the fingerprint."""
        sizes = {
            f"{split}/{os.path.basename(file.path)}": f"{file.size} bytes"
            for split, files in self._files.items()
            for file in files
        }
        return {"records": self.fingerprint(), **sizes}

    def _place(self, split: str, row: int) -> tuple[_File, int, int]:
        """The file of a row, the group in it, and the position in that."""
        ends = self._ends[split]
        number = int(np.searchsorted(ends, row, side="right"))
        file = self._files[split][number]
        inside = row - (int(ends[number - 1]) if number else 0)
        group = int(np.searchsorted(file.groups, inside, side="right"))
        return file, group, inside - (int(file.groups[group - 1]) if group else 0)

    def _label(self, split: str, row: int, name: str) -> int | tuple[int, ...]:
        found = self._labels[split][row]
        if self.max_labels is None:
            return int(found)
        if len(found) > self.max_labels:
            raise UserError(
                f"{name} has {len(found)} labels, above config.data.max_labels="
                f"{self.max_labels}; raise it (a run that resumes may do so too)"
            )
        return tuple(int(each) for each in found)

    def _image(self, file: _File, group: int, position: int) -> bytes:
        key = f"{file.path} {file.version} group {group}"
        if self._cache is not None and (kept := self._cache.get(f"{key} row {position}")):
            return kept
        images = _groups().images(file, group, self._columns)
        if self._cache is not None:
            for number, image in enumerate(images):
                self._cache.put(f"{key} row {number}", image)
        return images[position]

    @functools.cached_property
    def _ends(self) -> dict[str, np.ndarray]:
        """By split, the number of rows up to the end of each file."""
        return {
            split: np.cumsum([int(file.groups[-1]) for file in files])
            for split, files in self._files.items()
        }


class _Opened(NamedTuple):
    files: list[_File]
    labels: np.ndarray


def _open_all(paths: Sequence[str], columns: Columns) -> _Opened:
    """Reads the footers and the labels of files, several at once."""
    with ThreadPoolExecutor(_THREADS) as pool:
        opened = list(pool.map(lambda path: _open(path, columns), paths))
    return _Opened([file for file, _ in opened], np.concatenate([each for _, each in opened]))


def _open(path: str, columns: Columns) -> tuple[_File, np.ndarray]:
    version = objects.version(path)
    with checked_parquet(path) as file:
        metadata = file.metadata
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        if columns.label is not None and columns.label not in file.schema_arrow.names:
            raise UserError(
                f"{path}: has no column {columns.label!r}, which the files of train have; add it, "
                "or name the other files"
            )
        labels = columns.read_labels(file, path)
    return _File(path, str(version), objects.size(path), np.cumsum([0, *rows])[1:]), labels


class _Groups:
    """The groups of rows that a process has read last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, int], list[bytes]] = OrderedDict()
        self._bytes = 0

    def images(self, file: _File, group: int, columns: Columns) -> list[bytes]:
        """The encoded images of a group."""
        key = (file.path, file.version, group)
        if key not in self._kept:
            with open_parquet(file.path) as opened:
                images = columns.read_images(opened, group)
            self._kept[key] = images
            self._bytes += sum(map(len, images))
            while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= sum(map(len, dropped))
        self._kept.move_to_end(key)
        return self._kept[key]


@functools.cache
def _groups() -> _Groups:
    return _Groups()


def _require_pyarrow(dataset: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'data set {dataset}: Parquet needs pyarrow; type `pip install "vit_jax[parquet]"`'
        ) from error


def parquet_splits(dataset: str) -> tuple[str, ...]:
    """Names of the splits that Parquet files have.

    Raises:
      UserError: there are no files, or some are missing.
    """
    return tuple(shards_by_split(dataset, PARQUET))
