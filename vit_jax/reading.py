"""Reads small text files that people name: lists and maps."""

import errno
import os
import stat
from pathlib import Path

_MOST_BYTES = 2**26


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark.

    Raises:
      OSError: it is missing or no file, such as a pipe, from which nothing might ever come, or a
        device, which might never end; or it is larger than 64 MiB.
      UnicodeDecodeError: it is not text.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise OSError(errno.EFBIG, "it is larger than 64 MiB")
    return data.decode("utf-8-sig")
