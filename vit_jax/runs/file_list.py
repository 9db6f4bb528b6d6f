"""The list of a checkpoint's files, with their sizes and digests; checked before they are opened.

A reader of a damaged checkpoint may fail in any way: with the exceptions of five libraries, by
waiting for a FIFO, or by taking the memory that a damaged number claims. So a checkpoint whose
files differ from its list is not opened at all.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vit_jax.reading import open_file, other_kind

NAME = "files.json"

# Orbax completes these after the list is written, and nothing here reads them.
_NOT_LISTED = frozenset(("_CHECKPOINT_METADATA", "commit_success.txt", NAME))

_MAX_LIST = 2**26  # Bytes of a list; a checkpoint has some hundred files for each process.
_CHUNK = 2**20
_THREADS = 4


class DamagedError(Exception):
    """Files differ from their list; the message says which and how."""


def write(directory: Path) -> None:
    """Lists all files of a directory, in a file of it.

    Raises:
      OSError: a file cannot be read, or the list cannot be written.
    """
    names = [name for name in _names(directory) if name not in _NOT_LISTED]
    with ThreadPoolExecutor(_THREADS) as pool:
        entries = list(pool.map(lambda name: _entry(directory / name), names))
    files = dict(zip(names, entries, strict=True))
    with open(directory / NAME, "w", encoding="utf-8") as file:
        json.dump({"files": files, "digest": _digest_of(files)}, file)
        file.flush()
        os.fsync(file.fileno())


def check(directory: Path) -> bool:
    """Compares the files of a directory with their list; returns whether there is a list.

    Nothing but ordinary files may be in the directory, listed or not. Files that are not listed are
    not looked at otherwise.

    Raises:
      DamagedError: a file is missing, damaged or not an ordinary one, or the list is damaged.
    """
    try:
        found = frozenset(_names(directory))
        if NAME not in found:
            return False
        listed = _read(directory / NAME)
        missing = sorted(listed.keys() - found)
        if missing:
            raise DamagedError(f"{missing[0]} is missing")
        for name, (size, _) in listed.items():
            actual = (directory / name).stat().st_size
            if actual != size:
                raise DamagedError(f"{name} has {actual:,} bytes instead of {size:,}")
        with ThreadPoolExecutor(_THREADS) as pool:
            entries = pool.map(lambda name: _entry(directory / name), listed)
            for (name, expected), actual_entry in zip(listed.items(), entries, strict=True):
                if actual_entry != expected:
                    raise DamagedError(f"{name} is damaged")
    except OSError as error:
        raise DamagedError(f"{error.filename or directory}: {error.strerror or error}") from error
    return True


def _names(directory: Path) -> Iterator[str]:
    """Paths of all files below a directory, relative to it."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(directory / folder) as entries:
            for entry in entries:
                name = os.path.join(folder, entry.name)
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append(name)
                elif (kind := other_kind(mode)) is not None:
                    raise DamagedError(f"{name} is {kind}")
                else:
                    yield name


def _read(path: Path) -> dict[str, list[int | str]]:
    if path.stat().st_size > _MAX_LIST:
        raise DamagedError(f"{NAME} is damaged")
    try:
        content = json.loads(path.read_bytes())
        files: dict[str, list[int | str]] = content["files"]
        if content["digest"] != _digest_of(files):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{NAME} is damaged") from error
    return files


def _entry(path: Path) -> list[int | str]:
    """Size and digest of a file."""
    digest, size = hashlib.blake2b(digest_size=16), 0
    with open_file(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return [size, digest.hexdigest()]


def _digest_of(files: dict[str, list[int | str]]) -> str:
    text = json.dumps(files, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
