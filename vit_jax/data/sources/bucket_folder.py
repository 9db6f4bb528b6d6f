"""Folders in a bucket, by one listing of all that lies below the first of them.

A bucket has no folders, only names with slashes, and each question about one costs a request. So a
process lists what lies below a data set once, a thousand names a request, and keeps it. What is
added to the bucket later is seen by the next process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vit_jax.storage import objects

_log = logging.getLogger(__name__)


class BucketEntry(NamedTuple):
    """What lies in a folder of a bucket, as `os.DirEntry` has it."""

    name: str
    path: str
    size: int | None

    def is_dir(self) -> bool:
        """Whether names begin with it."""
        return self.size is None

    def is_symlink(self) -> bool:
        """A bucket has no links."""
        return False


# By the folder that was listed, and in it by folder, the entries.
_listed: dict[str, dict[str, list[BucketEntry]]] = {}


def entries(folder: str) -> Iterator[BucketEntry]:
    """What lies in a folder, sorted by name; nothing if there is no such folder.

    Raises:
      StorageError: the bucket cannot be used.
    """
    folder = folder.rstrip("/")
    roots = (root for root in _listed if folder == root or folder.startswith(f"{root}/"))
    root = next(roots, None)
    if root is None:
        root, _listed[folder] = folder, _list(folder)
    yield from _listed[root].get(folder, ())


def sizes(paths: Iterable[str]) -> dict[str, int]:
    """Bytes of files, by path, as far as their folders were listed; it makes no request."""
    folders = {os.path.dirname(path) for path in paths}
    return {
        entry.path: entry.size
        for tree in _listed.values()
        for folder in folders & tree.keys()
        for entry in tree[folder]
        if entry.size is not None
    }


def is_folder(path: str) -> bool:
    """Whether anything lies below a path."""
    return next(entries(path), None) is not None


def _list(root: str) -> dict[str, list[BucketEntry]]:
    _log.info("listing %s", root)
    tree: dict[str, list[BucketEntry]] = {}
    for name, size in objects.list_files(root).items():
        path = f"{root}/{name}"
        folder = os.path.dirname(path)
        if folder not in tree:
            _add_folder(tree, root, folder)
        tree[folder].append(BucketEntry(os.path.basename(path), path, size))
    return tree


def _add_folder(tree: dict[str, list[BucketEntry]], root: str, folder: str) -> None:
    """Adds a folder, and it to the one above it."""
    tree[folder] = []
    if folder != root:
        above = os.path.dirname(folder)
        if above not in tree:
            _add_folder(tree, root, above)
        tree[above].append(BucketEntry(os.path.basename(folder), folder, None))
