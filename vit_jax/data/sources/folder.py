"""Folders of images, one sub-folder for each class.

There are two layouts. The root holds the splits, and each of them the classes:
`root/train/cat/1.jpg`, `root/val/cat/2.jpg`. Or it holds the classes themselves,
`root/cat/1.jpg`, and the splits `train` and `test` are drawn from every class. `layout.py` tells
them apart.

Hidden files and folders are skipped, symbolic links are followed, and images count at any depth
below their class. `listing.py` states what an image is.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.formats import NAMES
from vit_jax.data.sources.layout import class_name, find_layout, kind_of
from vit_jax.data.sources.listing import LeftOut, images_below, subfolders
from vit_jax.data.sources.reading import read_image_file
from vit_jax.data.sources.records import Record
from vit_jax.data.sources.splits import split_names, split_ranges
from vit_jax.errors import UserError

_DEFAULT_TEST_FRACTION = 0.1
_LISTED_AT_MOST = 8

_STAT_THREADS = 8

_log = logging.getLogger(__name__)


class FolderSource:
    """The images of one split, or slices of splits, of a folder."""

    max_labels: int | None = None

    def __init__(self, dataset: str, split: str, test_fraction: float | None = None) -> None:
        # Worker processes need not share the current directory.
        root = os.path.abspath(os.path.expanduser(dataset))
        folder = _scan(root, test_fraction)
        spec = _own_names(split, folder.splits, dataset)
        ranges = split_ranges(spec, {s: [len(f)] for s, f in folder.splits.items()}, dataset)
        files = [file for s, start, stop in ranges for file in folder.splits[s][start:stop]]
        _say_once(_summary(root, folder, is_whole=split_names(spec) == ("all",)))
        self.name = f"{dataset}/{split}"
        self.class_names = folder.class_names
        self._root = os.fsencode(root)
        self._labels = np.array([file.label for file in files], np.int32)
        # One string and its offsets: 1.3 million separate strings would triple the memory of every
        # worker and the time to send them there.
        self._paths = b"".join(file.path for file in files)
        self._ends = np.cumsum([len(file.path) for file in files])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        start = self._ends[index - 1] if index else 0
        path = os.fsdecode(os.path.join(self._root, self._paths[start : self._ends[index]]))
        label = int(self._labels[index])
        try:
            return Record(read_image_file(path), label, path)
        except ImageError as error:
            return Record(b"", label, path, problem=str(error))

    def labels(self) -> np.ndarray:
        """The label of each record, int32 [records]."""
        return self._labels

    def fingerprint(self) -> str:
        """A hash of the labels and of the paths below the root."""
        parts = (self._labels.tobytes(), self._ends.tobytes(), self._paths)
        return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()

    def listing(self) -> dict[str, str]:
        """Label and size of each file, by its path below the root."""
        starts = [0, *self._ends[:-1]]
        paths = [self._paths[a:b] for a, b in zip(starts, self._ends, strict=True)]
        with ThreadPoolExecutor(_STAT_THREADS) as pool:  # Over a network, each takes a while.
            sizes = pool.map(self._size, paths)
            return {
                os.fsdecode(path): f"{size} of class {label}"
                for path, size, label in zip(paths, sizes, self._labels, strict=True)
            }

    def _size(self, path: bytes) -> str:
        try:
            return f"{os.stat(os.path.join(self._root, path)).st_size} bytes"
        except OSError as error:
            return f"unreadable ({error.strerror})"


def split_folders(dataset: str) -> tuple[str, ...]:
    """Names of the splits that a folder has; none if the root holds the classes themselves.

    Raises:
      UserError: the folder cannot be listed, or is laid out otherwise.
    """
    root = os.path.abspath(os.path.expanduser(dataset))
    _require_folder(root)
    return tuple(find_layout(root).splits)


class _File(NamedTuple):
    path: bytes  # below the data set's root
    label: int


class _Folder(NamedTuple):
    """What a folder holds.

    Attributes:
      test_fraction: the share of each class that was drawn for the split `test`; None where the
        folder has splits of its own.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[_File]]
    test_fraction: float | None


# Listing ImageNet takes seconds on a disk and minutes over a network: do it once for all splits.
@functools.lru_cache(maxsize=8)
def _scan(root: str, test_fraction: float | None) -> _Folder:
    _require_folder(root)
    left_out = LeftOut()
    layout = find_layout(root, left_out)
    if layout.splits:
        if test_fraction is not None:
            raise UserError(
                f"test_fraction={test_fraction} would be ignored: {root} has its own splits "
                f"({', '.join(layout.splits)}); leave it out"
            )
        folder = _with_splits(root, layout.splits, left_out)
    else:
        folder = _without_splits(root, left_out, test_fraction)
    if layout.without_classes:
        _log.warning("%s: left out %s (no class folders)", root, ", ".join(layout.without_classes))
    if text := str(left_out):
        _log.warning("%s: left out %s", root, text)
    return folder


@functools.cache
def _say_once(message: str) -> None:
    _log.info("%s", message)


def _summary(root: str, folder: _Folder, *, is_whole: bool) -> str:
    """What was found, so that a person sees a folder that was read as something else."""
    names = ", ".join(folder.class_names[:_LISTED_AT_MOST])
    more = ", …" if len(folder.class_names) > _LISTED_AT_MOST else ""
    counts = {split: len(files) for split, files in folder.splits.items()}
    drawn = ""
    if folder.test_fraction is not None and is_whole:
        counts = {"without splits": sum(counts.values())}
    elif folder.test_fraction is not None:
        drawn = (
            f" (it has no splits: test_fraction={folder.test_fraction:g} of each class is 'test')"
        )
    images = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    classes = f"{len(folder.class_names):,} class" + ("es" if len(folder.class_names) != 1 else "")
    return f"{root}: images: {images}{drawn}; {classes}: {names}{more}"


def _own_names(spec: str, splits: Mapping[str, object], dataset: str) -> str:
    """The split spec with each name as the folder has it: `val` where it calls that `valid`.

    Raises:
      UserError: the folder has no such split.
    """
    by_kind: dict[str | None, list[str]] = {}
    for own in splits:
        by_kind.setdefault(kind_of(own), []).append(own)
    for name in split_names(spec):
        if name in splits or name == "all":
            continue
        kind = kind_of(name)
        alike = by_kind.get(kind, []) if kind is not None else []
        if not alike and kind == "test" and len(alike := by_kind.get("val", [])) == 1:
            _say_once(
                f"data set folder {dataset} has no split {name!r}: {alike[0]!r} takes its place"
            )
        if len(alike) != 1:
            raise UserError(
                f"data set folder {dataset} has no split {name!r}, but {', '.join(splits)}; name "
                f"one of these in place of {spec!r}"
            )
        spec = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", alike[0], spec)
    return spec


def _require_folder(root: str) -> None:
    if not os.path.isdir(root):
        reason = "is a file, not a folder" if os.path.exists(root) else "does not exist"
        raise UserError(
            f"data set folder {root} {reason}; name a folder that has one folder for each class"
        )


def _with_splits(root: str, splits: Mapping[str, str], left_out: LeftOut) -> _Folder:
    files = {split: _images_by_class(root, folder, left_out) for split, folder in splits.items()}
    train = next((split for split in splits if kind_of(split) == "train"), None)
    if train is not None:
        files = _without_strangers(root, train, files)
        _require_classes_in(root, splits, train, files)
    first = next(iter(splits)) if train is None else train
    _require_images(root, splits[first], files[first])
    # One list of labels for all splits: a class that a split lacks must not shift the others.
    class_names = tuple(sorted(set().union(*files.values())))
    labels = {name: label for label, name in enumerate(class_names)}
    return _Folder(
        class_names,
        {
            split: _shuffled(
                [_File(path, labels[name]) for name, paths in of_class.items() for path in paths],
                prefix=splits[split],
            )
            for split, of_class in files.items()
        },
        test_fraction=None,
    )


def _without_strangers(
    root: str, train: str, files: dict[str, dict[str, list[bytes]]]
) -> dict[str, dict[str, list[bytes]]]:
    """Leaves out folders beside the splits that hold other things, such as images to predict."""
    strangers = [
        split
        for split, of_class in files.items()
        if kind_of(split) is None and not set(of_class) & set(files[train])
    ]
    if strangers:
        _log.warning("%s: left out %s (none of the classes of train)", root, ", ".join(strangers))
    return {split: of_class for split, of_class in files.items() if split not in strangers}


def _require_classes_in(
    root: str, splits: Mapping[str, str], train: str, files: Mapping[str, Mapping[str, object]]
) -> None:
    """Every class must be one to train on."""
    for split in files:
        missing = sorted(set(files[split]) - set(files[train]))
        if missing:
            raise UserError(
                f"class folder {os.path.join(root, splits[split], missing[0])} is missing from "
                f"{os.path.join(root, splits[train])}; add it there with images, or remove it here"
            )


def _images_by_class(root: str, folder: str, left_out: LeftOut) -> dict[str, list[bytes]]:
    """The paths of the images of each class in a folder below the root."""
    files: dict[str, list[bytes]] = {}
    for name in subfolders(os.path.join(root, folder), left_out if folder else None):
        found = images_below(root, os.path.join(folder, name), left_out)
        files.setdefault(class_name(name), []).extend(found)
    return dict(sorted(files.items()))


def _without_splits(root: str, left_out: LeftOut, test_fraction: float | None) -> _Folder:
    if test_fraction is None:
        test_fraction = _DEFAULT_TEST_FRACTION
    if not 0 < test_fraction < 1:
        raise UserError(
            f"test_fraction={test_fraction} for {root}: choose a share above 0 and below 1"
        )
    files = _images_by_class(root, "", left_out)
    _require_images(root, "", files)
    splits: dict[str, list[_File]] = {"train": [], "test": []}
    for label, paths in enumerate(files.values()):
        # Drawn within the class and by name: a file that is added elsewhere moves none of them. The
        # hash is not that of the order, or all train images would have high positions.
        drawn = sorted(paths, key=lambda path: _digest(path, b"test split"))
        count = _test_count(len(paths), test_fraction)
        splits["test"] += [_File(path, label) for path in drawn[:count]]
        splits["train"] += [_File(path, label) for path in drawn[count:]]
    # Without the split that nothing fell into: `all` is what is there.
    return _Folder(
        tuple(files), {s: _shuffled(drawn) for s, drawn in splits.items() if drawn}, test_fraction
    )


def _test_count(images: int, test_fraction: float) -> int:
    """Test images of a class: at least one if it has two, and one always remains to train on."""
    return min(max(round(test_fraction * images), 1), images - 1)


def _require_images(root: str, split: str, files: dict[str, list[bytes]]) -> None:
    if not any(files.values()):
        raise UserError(
            f"data set folder {os.path.join(root, split)} holds no images "
            f"({NAMES}) in class folders; lay them out as CLASS/IMAGE.jpg"
        )
    for name, paths in files.items():
        if not paths:
            raise UserError(
                f"class folder {os.path.join(root, split, name)} holds no images; "
                "fill it or remove it"
            )


def _shuffled(files: list[_File], prefix: str = "") -> list[_File]:
    """Orders files by a hash of their path within the split.

    A slice such as train[:10%] then has images of all classes, unlike in alphabetical order. An
    image keeps its place among the others when images are added or removed.
    """
    skip = len(os.fsencode(os.path.join(prefix, "")))
    return sorted(files, key=lambda file: _digest(file.path[skip:], b"order"))


def _digest(path: bytes, purpose: bytes) -> bytes:
    portable = path.replace(os.fsencode(os.sep), b"/")
    return hashlib.blake2b(portable, digest_size=16, person=purpose).digest()
