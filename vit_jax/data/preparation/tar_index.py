"""Where the images of tars lie, found once without reading them.

A tar, or a tar of tars, becomes a directory of arrays that processes map into memory: 14 million
images take 1 GB on the disk and, in each process, the pages that it reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax import atomic
from vit_jax.errors import UserError

# What each image has: the bytes of its name end here in `names`, its first byte and its size in
# the file, the file it lies in, and its label.
_ARRAYS = {"ends": "<i8", "starts": "<i8", "sizes": "<i8", "files": "<i4", "labels": "<i4"}
_NAMES, _DONE = "names", "index.json"


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
      start: its first byte in the file on the disk, which may be that of an outer tar.
      size: in bytes.
    """

    name: str
    start: int
    size: int


class Part(NamedTuple):
    """Images that are found together: a class tar, or a whole flat tar.

    Attributes:
      prefix: what the names of the images get in front.
      file: number of the file on the disk.
    """

    members: list[Member]
    labels: np.ndarray
    prefix: str
    file: int


def list_tar(path: str, start: int = 0, size: int | None = None) -> Iterator[Member]:
    """The ordinary files of a tar, which may lie within a file.

    Args:
      start: its first byte.
      size: in bytes; None is up to the end of the file.

    Raises:
      UserError: it is no tar, or ends too early.
    """
    with open(path, "rb", buffering=0) as file:
        file_end = os.fstat(file.fileno()).st_size
        end = file_end if size is None else start + size
        if end == start:
            return
        window: Any = _Window(file.fileno(), start, end)
        try:
            with tarfile.open(fileobj=window, mode="r:") as archive:
                while (found := archive.next()) is not None:
                    # Otherwise the archive would keep all that it has found.
                    archive.members.clear()  # type: ignore[attr-defined]
                    first = start + found.offset_data
                    if first + found.size > end:
                        raise tarfile.ReadError(f"{found.name} passes its end")
                    if found.isreg():
                        yield Member(found.name, first, found.size)
                _require_end(window, archive.offset, is_whole_file=end == file_end)
        except tarfile.TarError as error:
            raise UserError(
                f"{path}: a tar in it is damaged or not whole ({error}); download it again"
            ) from error


def _require_end(window: _Window, offset: int, *, is_whole_file: bool) -> None:
    """Refuses what `tarfile` takes for the end of a tar: a damaged header, or a cut between files.

    Args:
      is_whole_file: whether the file ends with this tar, so that a download may have been cut here.
        In an outer tar, the size of an inner one is known.
    """
    window.seek(offset)
    block = window.read(tarfile.BLOCKSIZE)
    if any(block):
        raise tarfile.ReadError(f"there is no header at byte {offset:,}")
    if not block and is_whole_file:
        raise tarfile.ReadError("the blocks that end a tar are missing")


class _Window:
    """Some bytes of an open file, as the file that `tarfile` reads."""

    def __init__(self, descriptor: int, start: int, end: int) -> None:
        self._descriptor, self._start, self._end, self._at = descriptor, start, end, start

    def seek(self, offset: int) -> None:
        """Moves to a position."""
        self._at = self._start + offset

    def tell(self) -> int:
        """The position."""
        return self._at - self._start

    def read(self, size: int) -> bytes:
        """Reads what there is, up to `size` bytes."""
        data = os.pread(self._descriptor, max(min(size, self._end - self._at), 0), self._at)
        self._at += len(data)
        return data


def has_index(directory: Path, key: str) -> bool:
    """Whether a finished index of the same files lies there.

    Args:
      key: what tells these files from others, as `write_index` got it.
    """
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads((directory / _DONE).read_text())["key"] == key)
    return False


def write_index(directory: Path, key: str, files: list[str], parts: Iterable[Part]) -> None:
    """Writes an index, one part after the other, so that memory holds no more than one.

    Args:
      key: what tells these files from others.
      files: the paths on the disk that parts number.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        streams = {
            name: stack.enter_context(open(directory / name, "wb")) for name in (*_ARRAYS, _NAMES)
        }
        end = 0
        for part in parts:
            names = [os.fsencode(part.prefix + member.name) for member in part.members]
            ends = end + np.cumsum([len(name) for name in names], dtype=np.int64)
            end = int(ends[-1]) if len(ends) else end
            columns = {
                "ends": ends,
                "starts": [member.start for member in part.members],
                "sizes": [member.size for member in part.members],
                "files": np.full(len(names), part.file),
                "labels": part.labels,
            }
            streams[_NAMES].write(b"".join(names))
            for name, values in columns.items():
                streams[name].write(np.asarray(values, _ARRAYS[name]).tobytes())
        for stream in streams.values():
            stream.flush()
            os.fsync(stream.fileno())
    atomic.write_bytes(directory / _DONE, json.dumps({"key": key, "files": files}).encode())


class Index:
    """An index that `write_index` has written. Its arrays are mapped into memory.

    Attributes:
      files: paths on the disk.
      starts, sizes, labels: of each image, in the order of the parts.
      names, ends: the bytes of all names, and where the name of each image ends in them.
    """

    def __init__(self, directory: Path) -> None:
        self.files: list[str] = json.loads((directory / _DONE).read_text())["files"]
        self.ends = _mapped(directory / "ends", "<i8")
        self.starts = _mapped(directory / "starts", "<i8")
        self.sizes = _mapped(directory / "sizes", "<i8")
        self.labels = _mapped(directory / "labels", "<i4")
        self._files = _mapped(directory / "files", "<i4")
        self.names = _mapped(directory / _NAMES, "u1")

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, index: int) -> str:
        """The name of an image with that of its class tar, such as `n01440764/n01440764_1.JPEG`."""
        start = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.names[start : int(self.ends[index])].tobytes())

    def path(self, index: int) -> str:
        """The file on the disk that an image lies in."""
        return self.files[int(self._files[index])]


def _mapped(path: Path, kind: str) -> np.ndarray:
    if not path.stat().st_size:  # An empty file cannot be mapped.
        return np.empty(0, kind)
    return np.memmap(path, kind, "r")
