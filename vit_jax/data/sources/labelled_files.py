"""Image files by their paths, with a label or several: what folders and tables are read into."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from vit_jax.data.images.errors import ImageError
from vit_jax.data.sources import bucket_folder
from vit_jax.data.sources.reading import read_image_file
from vit_jax.data.sources.records import Record
from vit_jax.data.sources.split_words import own_names, say_once
from vit_jax.data.sources.splits import split_names, split_ranges
from vit_jax.errors import UserError
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket
from vit_jax.storage.pieces import side_by_side

_DEFAULT_TEST_FRACTION = 0.1
_LISTED_AT_MOST = 8
_STAT_THREADS = 8


class File(NamedTuple):
    """An image file.

    Attributes:
      path: below the data set's root, or absolute.
      labels: of a data set whose images have any number of them.
    """

    path: bytes
    label: int
    labels: tuple[int, ...] = ()


class FoundFiles(NamedTuple):
    """What a data set holds.

    Attributes:
      root: the folder that paths are below.
      splits: the files of each, in the order of their records.
      test_fraction: the share of each class that was drawn for the split `test`; None where the
        data set has splits of its own.
      max_labels: as in `records.Source`.
    """

    root: str
    class_names: tuple[str, ...]
    splits: dict[str, list[File]]
    test_fraction: float | None
    max_labels: int | None = None


class LabelledFiles:
    """The images of one split, or slices of splits.

    Args:
      name: the data set's, as it was typed.
      split: in TFDS syntax.
      where: the data set in messages, such as "data set folder ./photos".
      summary_of: what a line says was read.

    Raises:
      UserError: the data set has no such split.
    """

    def __init__(self, name: str, split: str, found: FoundFiles, where: str, summary_of: str):
        spec = own_names(split, found.splits, where)
        ranges = split_ranges(spec, {s: [len(f)] for s, f in found.splits.items()}, name)
        files = [file for s, start, stop in ranges for file in found.splits[s][start:stop]]
        say_once(_summary(summary_of, found, is_whole=split_names(spec) == ("all",)))
        self.name = f"{name}/{split}"
        self.class_names, self.max_labels = found.class_names, found.max_labels
        self._root = os.fsencode(found.root)
        # One string and its offsets: 1.3 million separate strings would triple the memory of every
        # worker and the time to send them there.
        self._paths = b"".join(file.path for file in files)
        self._ends = np.cumsum([len(file.path) for file in files])
        self._last_labels: np.ndarray | None = None
        if found.max_labels is None:
            self._labels = np.array([file.label for file in files], np.int32)
        else:
            self._labels = np.array([x for file in files for x in file.labels], np.int32)
            self._last_labels = np.cumsum([len(file.labels) for file in files])

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        path = self._address(index)
        label = self._label(index)
        try:
            return Record(read_image_file(path), label, path)
        except ImageError as error:
            return Record(b"", label, path, problem=str(error))

    def fetch(self, indices: Sequence[int]) -> Iterator[Record]:
        """The records at some indices, in that order; those in a bucket are read side by side."""
        if not len(self) or not is_bucket(self._address(0)):
            yield from map(self.__getitem__, indices)
            return
        yield from side_by_side(self.__getitem__, indices)

    def labels(self) -> np.ndarray:
        """The label of each record, int32 [records], where each has one."""
        assert self.max_labels is None
        return self._labels

    def paths(self) -> list[str]:
        """The path of each record's file, below the data set's root or absolute."""
        return [os.fsdecode(self._path(index)) for index in range(len(self))]

    def fingerprint(self) -> str:
        """A hash of the labels and of the paths below the root."""
        parts = [self._labels.tobytes(), self._ends.tobytes(), self._paths]
        if self._last_labels is not None:
            parts.append(self._last_labels.tobytes())
        return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()

    def listing(self) -> dict[str, str]:
        """Label and size of each file, by its path below the root."""
        paths, known = self.paths(), self._known_sizes()
        with ThreadPoolExecutor(_STAT_THREADS) as pool:  # Over a network, each takes a while.
            sizes = pool.map(lambda index: self._size(index, known), range(len(self)))
            return {
                path: f"{size} of class {self._label(index)}"
                for index, (path, size) in enumerate(zip(paths, sizes, strict=True))
            }

    def has_sizes(self) -> bool:
        """Whether `listing` makes no request: files lie on disks, or were listed in buckets."""
        remote = self._remote()
        return not remote or self._known_sizes().keys() >= remote

    def _remote(self) -> set[str]:
        return set(filter(is_bucket, map(self._address, range(len(self)))))

    def _known_sizes(self) -> dict[str, int]:
        """The sizes that came with the list of a bucket."""
        return bucket_folder.sizes(self._remote())

    def _path(self, index: int) -> bytes:
        return self._paths[self._ends[index - 1] if index else 0 : self._ends[index]]

    def _label(self, index: int) -> int | tuple[int, ...]:
        if self._last_labels is None:
            return int(self._labels[index])
        start = self._last_labels[index - 1] if index else 0
        return tuple(self._labels[start : self._last_labels[index]].tolist())

    def _address(self, index: int) -> str:
        """The path of a file, or its address in a bucket."""
        path = os.fsdecode(self._path(index))
        return path if is_bucket(path) else os.path.join(os.fsdecode(self._root), path)

    def _size(self, index: int, known: Mapping[str, int]) -> str:
        path = self._address(index)
        try:
            return f"{known.get(path) or objects.size(path)} bytes"
        except UserError:
            raise
        except OSError as error:
            return f"unreadable ({error.strerror})"


def shuffled(files: Sequence[File], prefix: str = "") -> list[File]:
    """Orders files by a hash of their path within the split.

    A slice such as train[:10%] then has images of all classes, unlike in alphabetical order. An
    image keeps its place among the others when images are added or removed.
    """
    skip = len(os.fsencode(os.path.join(prefix, "")))
    return sorted(files, key=lambda file: _digest(file.path[skip:], b"order"))


def require_fraction(test_fraction: float | None, where: str) -> float:
    """The share of each class that becomes the split `test`, or its default.

    Raises:
      UserError: it is not above 0 and below 1.
    """
    if test_fraction is None:
        return _DEFAULT_TEST_FRACTION
    if not 0 < test_fraction < 1:
        raise UserError(
            f"test_fraction={test_fraction} for {where}: choose a share above 0 and below 1"
        )
    return test_fraction


def refuse_fraction(test_fraction: float | None, where: str, splits: Iterable[str]) -> None:
    """Refuses a share to draw where there are splits already.

    Raises:
      UserError: one is given.
    """
    if test_fraction is not None:
        raise UserError(
            f"test_fraction={test_fraction} would be ignored: {where} has its own splits "
            f"({', '.join(splits)}); leave it out"
        )


def draw_test(classes: Sequence[Sequence[File]], test_fraction: float) -> dict[str, list[File]]:
    """The splits `train` and `test`, drawn from every class; without one that has no file."""
    splits: dict[str, list[File]] = {"train": [], "test": []}
    for files in classes:
        # Drawn within the class and by name: a file that is added elsewhere moves none of them. The
        # hash is not that of the order, or all train images would have high positions.
        drawn = sorted(files, key=lambda file: _digest(file.path, b"test split"))
        count = _test_count(len(files), test_fraction)
        splits["test"] += drawn[:count]
        splits["train"] += drawn[count:]
    # Without the split that nothing fell into: `all` is what is there.
    return {name: shuffled(files) for name, files in splits.items() if files}


def _test_count(images: int, test_fraction: float) -> int:
    """Test images of a class: at least one if it has two, and one always remains to train on."""
    return min(max(round(test_fraction * images), 1), images - 1)


def _digest(path: bytes, purpose: bytes) -> bytes:
    portable = path.replace(os.fsencode(os.sep), b"/")
    return hashlib.blake2b(portable, digest_size=16, person=purpose).digest()


def _summary(name: str, found: FoundFiles, *, is_whole: bool) -> str:
    """What was found, so that a person sees data that were read as something else."""
    names = ", ".join(found.class_names[:_LISTED_AT_MOST])
    more = ", …" if len(found.class_names) > _LISTED_AT_MOST else ""
    counts = {split: len(files) for split, files in found.splits.items()}
    drawn = ""
    if found.test_fraction is not None and is_whole:
        counts = {"without splits": sum(counts.values())}
    elif found.test_fraction is not None:
        drawn = (
            f" (it has no splits: test_fraction={found.test_fraction:g} of each class is 'test')"
        )
    images = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    several = "" if found.max_labels is None else f", up to {found.max_labels} labels an image"
    if not found.class_names:
        return f"{name}: images: {images}{drawn}; no labels"
    classes = f"{len(found.class_names):,} class" + ("es" if len(found.class_names) != 1 else "")
    return f"{name}: images: {images}{drawn}; {classes}{several}: {names}{more}"
