"""The files that a table's rows mean: as the disk spells them, or missing.

An accented letter is one character or two (Unicode's NFC and NFD), which look alike. Tables are
mostly written in NFC, and files from macOS are often named in NFD.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Sequence

from vit_jax.data.sources import bucket_folder
from vit_jax.data.sources.table_rows import Row
from vit_jax.storage.paths import is_bucket


def find_files(root: str, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Looks for the files of rows, with one listing a folder: a look at each would take minutes.

    Args:
      root: the folder below which paths that are not absolute lie.

    Returns:
      All rows, with paths as the disk spells them; and those of them without a file.
    """
    files: dict[str, set[str]] = {}
    spellings: dict[str, dict[str, list[str]]] = {}
    found, missing = [], []
    for row in rows:
        full = row.path if is_bucket(row.path) else os.path.join(root, row.path)
        folder, name = os.path.split(full)
        if folder not in files:
            files[folder] = _files_in(folder)
        # Some file systems find names in other spellings than they list.
        if name not in files[folder] and not os.path.isfile(full):
            other = None if is_bucket(full) else _spelled(root, row.path, spellings)
            if other is None:
                missing.append(row)
            else:
                row = row._replace(path=other)  # noqa: PLW2901
        found.append(row)
    return found, missing


def _files_in(folder: str) -> set[str]:
    if is_bucket(folder):
        return {each.name for each in bucket_folder.entries(folder) if not each.is_dir()}
    try:
        with os.scandir(folder) as entries:
            # A link that leads nowhere is told when it is read, as in folders.
            return {each.name for each in entries if each.is_symlink() or not each.is_dir()}
    except OSError:  # Missing, or it may be entered and not listed.
        return set()


def _spelled(root: str, path: str, known: dict[str, dict[str, list[str]]]) -> str | None:
    """A path as the disk spells it, if that differs in the form of its letters alone."""
    if path.isascii():
        return None
    is_absolute = os.path.isabs(path)
    start = os.sep if is_absolute else root
    found = [""]  # Below the start.
    for part in path.strip(os.sep).split(os.sep):
        longer = []
        for each in found:
            folder = os.path.join(start, each)
            if folder not in known:
                known[folder] = _spellings_in(folder)
            names = known[folder].get(unicodedata.normalize("NFC", part), [part])
            longer += [os.path.join(each, name) for name in names]
        found = longer
    found = [each for each in found if os.path.isfile(os.path.join(start, each))]
    if len(found) != 1:
        return None
    return os.path.join(start, found[0]) if is_absolute else found[0]


def _spellings_in(folder: str) -> dict[str, list[str]]:
    """Names in a folder by their NFC."""
    found: dict[str, list[str]] = {}
    with contextlib.suppress(OSError):  # It may be entered and not listed.
        for name in os.listdir(folder):
            found.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    return found
