"""Reads image files, and nothing that only looks like one: no device, pipe or socket."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from vit_jax.data.images.decoding import MEMORY_LIMIT
from vit_jax.data.images.errors import ImageError

_KINDS = {
    stat.S_IFDIR: "Is a directory",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
    stat.S_IFIFO: "a pipe, not a file",
    stat.S_IFSOCK: "a socket, not a file",
}


def read_image_file(path: str) -> bytes:
    """The bytes of an image file.

    Raises:
      ImageError: the file is missing, is no ordinary file, cannot be read, or is larger than an
        image may be.
    """
    try:
        with _open(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MEMORY_LIMIT:
                raise _unreadable(f"{size / 2**30:,.1f} GiB, more than an image may take")
            # A file that grows meanwhile, or that lies about its size, as those in /proc.
            data = file.read(size + 1)
            return data if len(data) <= size else data + file.read(MEMORY_LIMIT)
    except OSError as error:
        raise _unreadable(error.strerror or str(error)) from error
    except ValueError as error:  # A null byte in the path.
        raise _unreadable(str(error)) from error


def first_bytes(path: str, count: int) -> bytes:
    """The first bytes of an ordinary file; none of anything else, or of what cannot be read."""
    try:
        with _open(path) as file:
            return file.read(count)
    except (OSError, ValueError, ImageError):
        return b""


def _open(path: str) -> BinaryIO:
    # Opening a device may do something, and opening a pipe waits for a writer.
    _require_file(os.stat(path).st_mode)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = open(os.open(path, flags), "rb", buffering=0)
    try:
        _require_file(os.fstat(file.fileno()).st_mode)  # It may have changed in between.
    except ImageError:
        file.close()
        raise
    return file


def _require_file(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise _unreadable(_KINDS.get(stat.S_IFMT(mode), "not a file"))


def _unreadable(reason: str) -> ImageError:
    return ImageError(f"cannot read the file ({reason})")
