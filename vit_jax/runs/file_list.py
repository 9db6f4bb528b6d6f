"""The list of a checkpoint's files, with their sizes and digests; checked before they are opened.

A reader of a damaged checkpoint may fail in any way: with the exceptions of five libraries, by
waiting for a FIFO, or by taking the memory that a damaged number claims. So a checkpoint whose
files differ from its list is not opened at all.

In a bucket, the digests are those that the bucket states of its objects, where it does: it has
checked them when the objects were written, and nothing is read twice.
"""

import base64
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vit_jax.errors import StorageError
from vit_jax.reading import other_kind
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket

NAME = "files.json"

PathLike = str | os.PathLike[str]
# By name: bytes and digest.
Files = dict[str, list[int | str]]

# Orbax completes these after the list is written, and nothing here reads them.
_NOT_LISTED = frozenset(("_CHECKPOINT_METADATA", "commit_success.txt", NAME))

_MAX_LIST = 2**26  # Bytes of a list; a checkpoint has some hundred files for each process.
# What a digest begins with that a bucket has stated.
_MD5 = "md5:"
_THREADS = 4


class DamagedError(Exception):
    """Files differ from their list; the message says which and how."""


def write(directory: PathLike) -> None:
    """Lists all files of a directory, in a file of it.

    Raises:
      OSError: a file cannot be read, or the list cannot be written.
    """
    sizes, stated = _sizes(directory), _stated(directory)
    names = [name for name in sizes if name not in _NOT_LISTED]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda name: _digest(directory, name, stated), names))
    files: Files = {n: [sizes[n], digest] for n, digest in zip(names, found, strict=True)}
    text = json.dumps({"files": files, "digest": _digest_of(files)})
    objects.write_bytes(_join(directory, NAME), text.encode())


def check(directory: PathLike) -> bool:
    """Compares the files of a directory with their list; returns whether there is a list.

    Nothing but ordinary files may be in the directory, listed or not. Files that are not listed are
    not looked at otherwise.

    Raises:
      DamagedError: a file is missing, damaged or not an ordinary one, or the list is damaged.
    """
    try:
        found = _sizes(directory)
        if NAME not in found:
            return False
        if found[NAME] > _MAX_LIST:
            raise DamagedError(f"{NAME} is damaged")
        listed = _read(_join(directory, NAME))
        missing = sorted(listed.keys() - found.keys())
        if missing:
            raise DamagedError(f"{missing[0]} is missing")
        for name, (size, _) in listed.items():
            if found[name] != size:
                raise DamagedError(f"{name} has {found[name]:,} bytes instead of {size:,}")
        stated = _stated(directory)
        with ThreadPoolExecutor(_THREADS) as pool:
            digests = pool.map(
                lambda name: _digest(directory, name, stated, str(listed[name][1])), listed
            )
            for (name, (_, expected)), digest in zip(listed.items(), digests, strict=True):
                if digest != expected:
                    raise DamagedError(f"{name} is damaged")
    except StorageError:
        raise
    except OSError as error:
        raise DamagedError(f"{error.filename or directory}: {error.strerror or error}") from error
    return True


def _join(directory: PathLike, name: str) -> str:
    return f"{os.fspath(directory)}/{name}"


def _sizes(directory: PathLike) -> dict[str, int]:
    """All files below a directory, relative to it, and their bytes."""
    if is_bucket(directory):
        return objects.list_files(directory)
    return dict(_files(Path(directory)))


def _files(directory: Path) -> Iterator[tuple[str, int]]:
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
                    yield name, entry.stat().st_size


def _read(path: str) -> Files:
    try:
        content = json.loads(objects.read_bytes(path))
        files: Files = content["files"]
        if content["digest"] != _digest_of(files):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{NAME} is damaged") from error
    return files


def _stated(directory: PathLike) -> dict[str, str | None]:
    """The digests that the bucket of a directory states; none on a disk."""
    return objects.digests(directory) if is_bucket(directory) else {}


def _digest(
    directory: PathLike, name: str, stated: dict[str, str | None], expected: str | None = None
) -> str:
    """A file's digest, of the kind of the expected one: a run may move to a bucket, and back."""
    is_md5 = stated.get(name) is not None if expected is None else expected.startswith(_MD5)
    if is_md5 and stated.get(name) is not None:
        return f"{_MD5}{stated[name]}"
    digest = hashlib.md5() if is_md5 else hashlib.blake2b(digest_size=16)
    for piece in objects.read_pieces(_join(directory, name)):
        digest.update(piece)
    return _MD5 + base64.b64encode(digest.digest()).decode() if is_md5 else digest.hexdigest()


def _digest_of(files: Files) -> str:
    text = json.dumps(files, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
