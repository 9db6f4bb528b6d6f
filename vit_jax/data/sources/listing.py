"""Finds the images in folders, at any depth, and counts what it leaves out.

An image is what its bytes say. To look into each of a million files takes minutes, so a file with
an image's suffix is taken at its word; its bytes decide when it is read. All others are looked
into, but those in a bucket are left out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from vit_jax.data.images.formats import HEAD_BYTES, RAW_SUFFIXES, SUFFIXES, format_of
from vit_jax.data.sources import bucket_folder
from vit_jax.data.sources.bucket_folder import BucketEntry
from vit_jax.data.sources.reading import first_bytes
from vit_jax.errors import UserError
from vit_jax.storage.paths import is_bucket

Entry = os.DirEntry[str] | BucketEntry

# What file managers, archives and disks leave in folders; hidden ones besides.
_CLUTTER = frozenset(
    ["__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"]
)
_LONGEST_SUFFIX = 8


class LeftOut:
    """Counts what is left out of a folder."""

    def __init__(self) -> None:
        self._suffixes: Counter[str] = Counter()
        self._outside = 0

    def add_file(self, name: str) -> None:
        """Counts a file that is no image, by its suffix."""
        suffix = os.path.splitext(name)[1].lower()
        is_plain = suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= _LONGEST_SUFFIX
        self._suffixes[suffix if is_plain else "without a usual suffix"] += 1

    def add_outside(self) -> None:
        """Counts a file that lies in no class."""
        self._outside += 1

    def __str__(self) -> str:
        """Such as `1 file outside class folders, 5 files without an image (4 .txt, 1 .csv)`."""
        parts = []
        if self._outside:
            parts.append(f"{_files(self._outside)} outside class folders")
        if total := self._suffixes.total():
            counts = ", ".join(
                f"{count} {suffix}" for suffix, count in self._suffixes.most_common()
            )
            parts.append(f"{_files(total)} without an image ({counts})")
        return ", ".join(parts)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def subfolders(path: str, left_out: LeftOut | None = None) -> list[str]:
    """Names of the folders in `path`, sorted as strings, as in torchvision's ImageFolder.

    Raises:
      UserError: the folder cannot be listed.
    """
    names = []
    for entry in _entries(path):
        if _is_folder(entry):
            names.append(entry.name)
        elif left_out is not None:
            left_out.add_outside()
    return sorted(names)


def images_below(root: str, folder: str, left_out: LeftOut) -> list[bytes]:
    """Paths, below `root`, of all images in `folder` at any depth.

    Raises:
      UserError: a folder cannot be listed, or is met a second time through a link.
    """
    paths = []
    waiting = [folder]
    linked: set[str] = set()
    while waiting:
        folder = waiting.pop()
        for entry in _entries(os.path.join(root, folder)):
            path = os.path.join(folder, entry.name)
            if _is_folder(entry):
                if entry.is_symlink():
                    _require_new_target(entry, linked)
                waiting.append(path)
            elif _is_image(entry):
                paths.append(os.fsencode(path))
            else:
                left_out.add_file(entry.name)
    return paths


def has_images(path: str) -> bool:
    """Whether images lie in a folder itself, not below it."""
    return any(not _is_folder(entry) and _is_image(entry) for entry in _entries(path))


def list_images(folder: str, left_out: LeftOut | None = None) -> list[str]:
    """The paths of all images in a folder, at any depth, sorted.

    Raises:
      UserError: a folder cannot be listed.
    """
    found = images_below(folder, "", LeftOut() if left_out is None else left_out)
    return sorted(os.path.join(folder, os.fsdecode(path)) for path in found)


def _is_image(entry: Entry) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in SUFFIXES:
        return True
    # Each look into a bucket is a request.
    if suffix in RAW_SUFFIXES or is_bucket(entry.path):
        return False
    return format_of(first_bytes(entry.path, HEAD_BYTES)) is not None


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself, say.
        return False


def _entries(path: str) -> Iterator[Entry]:
    if is_bucket(path):
        yield from filter(_is_shown, bucket_folder.entries(path))
        return
    try:
        with os.scandir(path) as entries:
            yield from filter(_is_shown, entries)
    except OSError as error:
        raise UserError(
            f"cannot list folder {path}: {error.strerror}; fix its permissions or remove it"
        ) from error


def _is_shown(entry: Entry) -> bool:
    return not entry.name.startswith(".") and entry.name not in _CLUTTER


def _require_new_target(link: Entry, linked: set[str]) -> None:
    """Refuses a link to a folder that another link leads to: a loop, or images counted twice."""
    target = os.path.realpath(link.path)
    if target in linked:
        raise UserError(f"{link.path} leads to {target} a second time; remove the link")
    linked.add(target)
