"""Reads image files, and nothing that only looks like one: no device, pipe or socket."""

from __future__ import annotations

import os

from vit_jax.data.images.decoding import MEMORY_LIMIT
from vit_jax.data.images.errors import ImageError
from vit_jax.errors import UserError
from vit_jax.reading import open_file
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket


def read_image_file(path: str) -> bytes:
    """The bytes of an image file.

    Raises:
      ImageError: the file is missing, is no ordinary file, cannot be read, or is larger than an
        image may be.
    """
    if is_bucket(path):
        return _read_object(path)
    try:
        with open_file(path) as file:
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


def _read_object(path: str) -> bytes:
    try:
        data = objects.read_bytes(path)
    except OSError as error:
        if isinstance(error, UserError):  # The bucket itself is out of reach.
            raise
        raise _unreadable(error.strerror or str(error)) from error
    if len(data) > MEMORY_LIMIT:
        raise _unreadable(f"{len(data) / 2**30:,.1f} GiB, more than an image may take")
    return data


def first_bytes(path: str, count: int) -> bytes:
    """The first bytes of an ordinary file; none of anything else, or of what cannot be read."""
    try:
        with open_file(path) as file:
            return file.read(count)
    except (OSError, ValueError):
        return b""


def _unreadable(reason: str) -> ImageError:
    return ImageError(f"cannot read the file ({reason})")
