"""Reads and writes whole files, on disks and in buckets.

A bucket has neither directories nor locks, and no file that grows. Objects appear whole or not at
all, and can be written on the condition that nobody else has written them in between.
"""

import contextlib
import errno
import importlib
import io
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

from vit_jax import atomic, reading
from vit_jax.errors import UserError
from vit_jax.storage import disk
from vit_jax.storage.paths import is_bucket

# By scheme: our module, the class in it, and the extra that its library comes with.
_CLASSES = {
    "gs": ("vit_jax.storage.google_cloud", "GoogleCloud", "gcs"),
    "s3": ("vit_jax.storage.s3", "S3", "s3"),
}

PathLike = str | os.PathLike[str]


def read_bytes(path: PathLike, start: int | None = None, stop: int | None = None) -> bytes:
    """A file, or the range [start, stop) of it, which must lie within it.

    Raises:
      FileNotFoundError: there is none.
      EOFError: it ends before `stop`.
      StorageError: the bucket cannot be used.
      OSError: the disk fails.
    """
    if not is_bucket(path):
        return disk.read_range(path, start, stop)
    start = start or 0
    if stop is not None and stop <= start:
        return b""
    try:
        data = bytes(_file_system(path).cat_file(os.fspath(path), start=start or None, end=stop))
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", os.fspath(path)) from None
    if stop is not None and len(data) != stop - start:
        raise disk.too_short(path, start + len(data), stop)
    return data


def open_remote(path: PathLike) -> BinaryIO:
    """Opens an object to read any part of it; each read is a request.

    Raises:
      FileNotFoundError: there is none.
      StorageError: the bucket cannot be used.
    """
    opened: BinaryIO = _file_system(path).open(os.fspath(path), "rb", cache_type="none")
    return opened


def read_small(path: PathLike) -> bytes:
    """A file that somebody may have put another one in the place of; as `read_bytes`.

    Raises:
      OSError: on a disk, it has more than 64 MiB.
    """
    return read_bytes(path) if is_bucket(path) else reading.read_bytes(path)


def read_pieces(path: PathLike, length: int = 2**24) -> Iterator[bytes]:
    """A file in pieces of up to `length` bytes."""
    if is_bucket(path):
        end = size(path)
        for start in range(0, end, length):
            yield read_bytes(path, start, min(start + length, end))
        return
    with reading.open_file(path) as file:
        while piece := file.read(length):
            yield piece


def write_bytes(path: PathLike, data: bytes) -> None:
    """Replaces a file, whole or not at all; on a disk, makes its directory.

    Raises:
      StorageError: the bucket cannot be used.
      OSError: the disk fails.
    """
    if is_bucket(path):
        _file_system(path).pipe_file(os.fspath(path), data)
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(Path(path), data)


def write_all(writers: Mapping[str | os.PathLike[str], Callable[[IO[bytes]], object]]) -> None:
    """Replaces several files, each whole or not at all, in the given order; makes directories.

    On a disk none is replaced before all are written.

    Raises:
      StorageError, OSError: as `write_bytes`.
    """
    if not any(map(is_bucket, writers)):
        for path in writers:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic.write_all({Path(path): write for path, write in writers.items()})
        return
    for path, write in writers.items():
        buffer = io.BytesIO()
        write(buffer)
        write_bytes(path, buffer.getvalue())


def require_writable(path: PathLike) -> None:
    """Checks that an object can be written: writes an empty one beside it, and deletes that.

    Raises:
      StorageError: the bucket cannot be used.
    """
    probe = f"{os.fspath(path)}.{secrets.token_hex(4)}.probe"
    write_bytes(probe, b"")
    delete(probe)


def send(file: Path, path: PathLike) -> None:
    """Copies a file of a disk to a bucket in pieces; the object appears when it is whole.

    Raises:
      StorageError: the bucket cannot be used.
      OSError: the file cannot be read.
    """
    _file_system(path).put_file(os.fspath(file), os.fspath(path))


def write_if(path: PathLike, data: bytes, known: str | None) -> str | None:
    """Writes a small file if its version is the known one still; with None, if there is none.

    An answer may be lost after the file was written, and the next try finds the file of the first.
    So two that write equal files both succeed: who must be alone writes what only it knows.

    On a disk, another process may write in between unless the version is None.

    Returns:
      The new version; None if the file has another one, and other content.
    """
    if not is_bucket(path):
        return disk.write_if(Path(path), data, known)
    written: str | None = _file_system(path).write_if(os.fspath(path), data, known)
    if written is None:
        with contextlib.suppress(FileNotFoundError):
            # It may be ours, of a try whose answer was lost.
            found = version(path)
            if read_bytes(path) == data:
                return found
    return written


def version(path: PathLike) -> str | None:
    """What differs once a file has been written again; None if there is none."""
    if not is_bucket(path):
        return disk.version(path)
    try:
        return str(_file_system(path).version(os.fspath(path)))
    except FileNotFoundError:
        return None


def exists(path: PathLike) -> bool:
    """Whether there is a file; a directory of a bucket is none."""
    return version(path) is not None


def size(path: PathLike) -> int:
    """Bytes of a file.

    Raises:
      FileNotFoundError: there is none.
    """
    if not is_bucket(path):
        return os.stat(path).st_size
    info = _file_system(path).info(os.fspath(path))
    if info["type"] != "file":
        raise FileNotFoundError(os.fspath(path))
    return int(info["size"])


def modified(path: PathLike) -> float:
    """When a file was written, in seconds since 1970.

    Raises:
      FileNotFoundError: there is none.
    """
    if is_bucket(path):
        return float(_file_system(path).modified(os.fspath(path)).timestamp())
    return os.stat(path).st_mtime


def list_files(directory: PathLike) -> dict[str, int]:
    """All files below a directory, sorted: their names relative to it, and their bytes."""
    if is_bucket(directory):
        root = os.fspath(directory).partition("://")[2].rstrip("/") + "/"
        found = _file_system(directory).find(os.fspath(directory), detail=True)
        # Some tools mark a directory by an empty object whose name ends in a slash.
        sizes = {
            name.removeprefix(root): int(info["size"])
            for name, info in found.items()
            if name.startswith(root) and not name.endswith("/")
        }
    else:
        sizes = dict(disk.walk(Path(directory)))
    return dict(sorted(sizes.items()))


class FileState(NamedTuple):
    """What a list of files tells about one.

    Attributes:
      size: bytes.
      version: differs once the file has been written again, as its time of change on a disk does.
    """

    size: int
    version: str


def list_states(directory: PathLike) -> dict[str, FileState]:
    """The files in a directory of a bucket, not below it: by one request for a thousand.

    Raises:
      StorageError: the bucket cannot be used.
    """
    try:
        found = _file_system(directory).ls(os.fspath(directory), detail=True)
    except FileNotFoundError:
        return {}
    return {
        info["name"].rpartition("/")[2]: FileState(
            int(info["size"]), str(info.get("generation") or info["ETag"])
        )
        for info in found
        if info["type"] == "file"
    }


def list_names(directory: PathLike) -> list[str]:
    """Names of the files and directories in a directory, sorted; none if there is no directory."""
    if is_bucket(directory):
        try:
            found = _file_system(directory).ls(os.fspath(directory), detail=False)
        except FileNotFoundError:
            return []
        root = os.fspath(directory).partition("://")[2].rstrip("/")
        return sorted({n.rstrip("/").rpartition("/")[2] for n in found if n.rstrip("/") != root})
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def digests(directory: PathLike) -> dict[str, str | None]:
    """For each object below a directory of a bucket, the MD5 that the bucket states, in base64.

    S3 states none. The bucket checks it when an object is written.
    """
    root = os.fspath(directory).partition("://")[2].rstrip("/") + "/"
    found = _file_system(directory).find(os.fspath(directory), detail=True)
    return {name.removeprefix(root): info.get("md5Hash") for name, info in found.items()}


def move(path: PathLike, target: PathLike) -> None:
    """Gives a file another name, in the same bucket or on the same disk; replaces what is there.

    In a bucket it is copied and then deleted, so that for a moment, or after a kill, both exist.

    Raises:
      FileNotFoundError: there is none.
      StorageError, OSError: as `write_bytes`.
    """
    if not is_bucket(path):
        os.replace(path, target)
        return
    _file_system(path).cp_file(os.fspath(path), os.fspath(target))
    delete(path)


def delete(path: PathLike) -> None:
    """Deletes a file; does nothing if there is none."""
    with contextlib.suppress(FileNotFoundError):
        if is_bucket(path):
            _file_system(path).rm_file(os.fspath(path))
        else:
            os.unlink(path)


def require_library(path: PathLike) -> None:
    """Imports what a path's bucket needs; does nothing for a disk.

    From then on, etils' paths and Orbax make their requests by it too.

    Raises:
      UserError: it is not installed.
    """
    if is_bucket(path):
        _file_system(path)


def _file_system(path: PathLike) -> Any:
    # Each time anew: fsspec knows after a fork that it must make another one.
    module, name, extra = _CLASSES[os.fspath(path).partition("://")[0]]
    try:
        return getattr(importlib.import_module(module), name)()
    except ImportError as error:
        raise UserError(
            f'{path}: {error.name} is not installed; type `pip install "vit_jax[{extra}]"`'
        ) from error
