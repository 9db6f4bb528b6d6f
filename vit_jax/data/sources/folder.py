"""Folders of images, one sub-folder for each class.

There are two layouts. If the root has a folder `train`, each folder of the root is a split and
holds the classes: `root/train/cat/1.jpg`, `root/val/cat/2.jpg`. Otherwise the root holds the
classes themselves, `root/cat/1.jpg`, and the splits `train` and `test` are drawn from every class.

Hidden files and folders are skipped, symbolic links are followed, and images count at any depth
below their class.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from vit_jax.data.sources.records import Record
from vit_jax.data.sources.splits import split_ranges
from vit_jax.errors import UserError

_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"])
_DEFAULT_TEST_FRACTION = 0.1

_STAT_THREADS = 8

_log = logging.getLogger(__name__)


class FolderSource:
    """The images of one split, or slices of splits, of a folder."""

    max_labels: int | None = None

    def __init__(self, dataset: str, split: str, test_fraction: float | None = None) -> None:
        # Worker processes need not share the current directory.
        root = os.path.abspath(os.path.expanduser(dataset))
        folder = _scan(root, test_fraction)
        ranges = split_ranges(split, {s: [len(f)] for s, f in folder.splits.items()}, dataset)
        files = [file for s, start, stop in ranges for file in folder.splits[s][start:stop]]
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
        try:
            with open(path, "rb") as file:
                image = file.read()
        except OSError as error:
            raise UserError(
                f"cannot read {path} ({error.strerror}), which existed when the folder was "
                "listed; restore it, or start again without it"
            ) from error
        return Record(image, int(self._labels[index]), path)

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


def list_images(folder: str) -> list[str]:
    """The paths of all images in a folder, at any depth, sorted.

    Raises:
      UserError: the folder cannot be listed.
    """
    return sorted(os.path.join(folder, os.fsdecode(p)) for p in _images(folder, "", Counter()))


def split_folders(dataset: str) -> tuple[str, ...]:
    """Names of the folders that are splits; none if the root holds the classes themselves.

    Raises:
      UserError: the folder cannot be listed.
    """
    root = os.path.abspath(os.path.expanduser(dataset))
    _require_folder(root)
    folders = _subfolders(root, Counter())
    return tuple(folders) if "train" in folders else ()


class _File(NamedTuple):
    path: bytes  # below the data set's root
    label: int


class _Folder(NamedTuple):
    class_names: tuple[str, ...]
    splits: dict[str, list[_File]]


# Listing ImageNet takes seconds on a disk and minutes over a network: do it once for all splits.
@functools.lru_cache(maxsize=8)
def _scan(root: str, test_fraction: float | None) -> _Folder:
    _require_folder(root)
    ignored: Counter[str] = Counter()
    folders = _subfolders(root, ignored)
    if "train" in folders:
        if test_fraction is not None:
            raise UserError(
                f"test_fraction={test_fraction} would be ignored: {root} has its own splits "
                f"({', '.join(folders)}); leave it out"
            )
        folder = _with_splits(root, folders, ignored)
    else:
        folder = _without_splits(root, folders, ignored, test_fraction)
    if ignored:
        counts = ", ".join(f"{count} {what}" for what, count in sorted(ignored.items()))
        _log.warning("%s: ignored %s", root, counts)
    return folder


def _require_folder(root: str) -> None:
    if not os.path.isdir(root):
        reason = "is a file, not a folder" if os.path.exists(root) else "does not exist"
        raise UserError(
            f"data set folder {root} {reason}; name a folder that has one folder for each class"
        )


def _with_splits(root: str, splits: list[str], ignored: Counter[str]) -> _Folder:
    classes = {split: _subfolders(os.path.join(root, split), ignored) for split in splits}
    # One list of labels for all splits: a class that a split lacks must not shift the others.
    class_names = tuple(sorted(set().union(*classes.values())))
    for split in splits:
        missing = sorted(set(classes[split]) - set(classes["train"]))
        if missing:
            raise UserError(
                f"class folder {os.path.join(root, split, missing[0])} is missing from "
                f"{os.path.join(root, 'train')}; add it there with images, or remove it here"
            )
    files = {
        split: {name: _images(root, os.path.join(split, name), ignored) for name in classes[split]}
        for split in splits
    }
    _require_images(root, "train", files["train"])
    labels = {name: label for label, name in enumerate(class_names)}
    return _Folder(
        class_names,
        {
            split: _shuffled(
                [_File(path, labels[name]) for name, paths in of_class.items() for path in paths],
                prefix=split,
            )
            for split, of_class in files.items()
        },
    )


def _without_splits(
    root: str, class_names: list[str], ignored: Counter[str], test_fraction: float | None
) -> _Folder:
    if test_fraction is None:
        test_fraction = _DEFAULT_TEST_FRACTION
        _log.info("%s has no splits: test_fraction=%g of each class is 'test'", root, test_fraction)
    if not 0 < test_fraction < 1:
        raise UserError(
            f"test_fraction={test_fraction} for {root}: choose a share above 0 and below 1"
        )
    files = {name: _images(root, name, ignored) for name in class_names}
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
        tuple(class_names), {s: _shuffled(drawn) for s, drawn in splits.items() if drawn}
    )


def _test_count(images: int, test_fraction: float) -> int:
    """Test images of a class: at least one if it has two, and one always remains to train on."""
    return min(max(round(test_fraction * images), 1), images - 1)


def _require_images(root: str, split: str, files: dict[str, list[bytes]]) -> None:
    if not any(files.values()):
        raise UserError(
            f"data set folder {os.path.join(root, split)} holds no images "
            f"({', '.join(sorted(_SUFFIXES))}) in class folders; lay them out as CLASS/IMAGE.jpg"
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


def _subfolders(path: str, ignored: Counter[str]) -> list[str]:
    """Names of the folders in `path`, sorted as strings, as in torchvision's ImageFolder."""
    names = []
    for entry in _entries(path):
        if entry.is_dir():
            names.append(entry.name)
        else:
            ignored["files outside class folders"] += 1
    return sorted(names)


def _images(root: str, folder: str, ignored: Counter[str]) -> list[bytes]:
    """Paths, below `root`, of all images in `folder` at any depth."""
    paths = []
    waiting = [folder]
    linked: set[str] = set()
    while waiting:
        folder = waiting.pop()
        for entry in _entries(os.path.join(root, folder)):
            path = os.path.join(folder, entry.name)
            if entry.is_dir():
                if entry.is_symlink():
                    _require_new_target(entry, linked)
                waiting.append(path)
            elif os.path.splitext(entry.name)[1].lower() in _SUFFIXES:
                paths.append(os.fsencode(path))
            else:
                ignored["files that are not images"] += 1
    return paths


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(
            f"cannot list folder {path}: {error.strerror}; fix its permissions or remove it"
        ) from error


def _require_new_target(link: os.DirEntry[str], linked: set[str]) -> None:
    """Refuses a link to a folder that another link leads to: a loop, or images counted twice."""
    target = os.path.realpath(link.path)
    if target in linked:
        raise UserError(f"{link.path} leads to {target} a second time; remove the link")
    linked.add(target)
