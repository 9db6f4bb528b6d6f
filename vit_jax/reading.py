"""Opens files that people name: ordinary ones only.

A pipe may keep its reader waiting for ever, a device may never end, and opening one may do
something.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

_MOST_BYTES = 2**26

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens an ordinary file to read its bytes, without a buffer.

    Raises:
      OSError: it is missing, cannot be read, or is something else; the message says which.
      ValueError: the path holds a null byte.
    """
    _require_file(os.stat(path).st_mode)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = open(os.open(path, flags), "rb", buffering=0)
    try:
        _require_file(os.fstat(file.fileno()).st_mode)  # It may have changed in between.
    except OSError:
        file.close()
        raise
    return file


def other_kind(mode: int) -> str | None:
    """What is no ordinary file, such as "a pipe and not a file"; None for a file.

    Args:
      mode: `st_mode`, of the link itself or of what it leads to.
    """
    if stat.S_ISREG(mode):
        return None
    return f"{_KINDS.get(stat.S_IFMT(mode), 'something else')} and not a file"


def read_bytes(path: str | os.PathLike[str], most: int = _MOST_BYTES) -> bytes:
    """All bytes of an ordinary file.

    Raises:
      OSError, ValueError: as `open_file`; or it is larger than `most` bytes.
    """
    with open_file(path) as file:
        data = bytearray()
        while chunk := file.read(most + 1 - len(data)):
            data += chunk
    if len(data) > most:
        raise OSError(f"larger than {most // 2**20} MiB")
    return bytes(data)


def read_text(path: Path, most: int = _MOST_BYTES) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark.

    Raises:
      OSError, ValueError: as `read_bytes`; or it is not text.
    """
    return read_bytes(path, most).decode("utf-8-sig")


def _require_file(mode: int) -> None:
    if (kind := other_kind(mode)) is not None:
        raise OSError(kind)
