"""Files that commands write, on disks and in buckets: named, checked first, and written whole."""

import argparse
import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from etils import epath

from vit_jax import atomic
from vit_jax.errors import StorageError, UserError
from vit_jax.storage import objects
from vit_jax.storage.paths import SCHEMES, given_path, is_bucket


def output_path(text: str) -> epath.Path:
    """Reads a path on a disk, where `~` is the home directory, or in a bucket.

    Raises:
      argparse.ArgumentTypeError: the text is another address, which would become a local folder,
        or names no bucket.
    """
    if "://" in text and not is_bucket(text):
        raise argparse.ArgumentTypeError(
            f"{text} must be a local or mounted path, or one in a bucket ({', '.join(SCHEMES)})"
        )
    try:
        return given_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def refuse_bucket(path: str | os.PathLike[str], flag: str, reason: str) -> None:
    """Refuses an output in a bucket.

    Args:
      reason: why it cannot lie there, as the end of a sentence.

    Raises:
      UserError: it lies in one.
    """
    if is_bucket(path):
        copy = "gcloud storage cp" if os.fspath(path).startswith("gs://") else "aws s3 cp"
        raise UserError(
            f"--{flag}={path}: {reason}; name a file on a disk, and copy it when it is whole: "
            f"{copy} FILE {path}"
        )


def check_output(path: str | os.PathLike[str], flag: str = "output") -> None:
    """Refuses an output that could not be written, before the work that it is to hold.

    On a disk, nothing that is no file is replaced by one.

    Raises:
      UserError: there is a device, a pipe, a socket or a folder, or the bucket cannot be used.
    """
    if is_bucket(path):
        objects.require_writable(path)
    elif os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"--{flag}={path}: there is something that is no file; choose another one")


def check_folder(path: str | os.PathLike[str], flag: str = "output") -> None:
    """Refuses an output on a disk whose folder is missing or cannot be written.

    Raises:
      UserError: it is so.
    """
    folder = os.path.dirname(path) or "."
    if is_bucket(path) or (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        return
    if os.path.isdir(folder):
        number = errno.EACCES
    else:
        number = errno.ENOTDIR if os.path.exists(folder) else errno.ENOENT
    raise UserError(f"--{flag}={path}: {os.strerror(number)}; choose another file")


def write_outputs(contents: Mapping[epath.Path, bytes], flag: str = "output") -> None:
    """Replaces files, each whole or not at all, in the given order.

    Args:
      flag: that names the last of them.

    Raises:
      UserError: one cannot be written.
    """
    try:
        if any(map(is_bucket, contents)):
            for path, content in contents.items():
                objects.write_bytes(path, content)
        else:
            atomic.write_all({Path(path): _writer(data) for path, data in contents.items()})
    except StorageError:
        raise
    except OSError as error:
        named = list(contents)[-1]
        raise UserError(f"--{flag}={named}: {error.strerror}; choose another file") from error


def _writer(data: bytes) -> Callable[[IO[bytes]], object]:
    return lambda file: file.write(data)
