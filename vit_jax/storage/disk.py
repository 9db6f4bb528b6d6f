"""Files on a disk, as `objects.py` reads and writes those in buckets."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from vit_jax import atomic, reading


def read_range(path: str | os.PathLike[str], start: int | None, stop: int | None) -> bytes:
    """The bytes start <= i < stop of a file; None is its beginning, or its end.

    Raises:
      EOFError: it ends before `stop`.
      OSError: the disk fails.
    """
    with reading.open_file(path) as file:
        file.seek(start or 0)
        if stop is None:
            return file.read()
        parts, left = [], stop - (start or 0)
        while left > 0 and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
    if left > 0:
        raise too_short(path, stop - left, stop)
    return b"".join(parts)


def too_short(path: str | os.PathLike[str], end: int, stop: int) -> EOFError:
    """The error for a file that ends too early."""
    return EOFError(f"{os.fspath(path)} ends at byte {end:,}, before byte {stop:,}")


def version(path: str | os.PathLike[str]) -> str | None:
    """What differs once a file has been written again; None if there is none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def write_if(path: Path, data: bytes, known: str | None) -> str | None:
    """As `objects.write_if`; another process may write in between unless `known` is None."""
    if version(path) != known:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    if known is not None:
        atomic.write_bytes(path, data)
        return version(path)
    temporary = path.with_name(f".{path.name}.{threading.get_ident()}.tmp")
    try:
        atomic.write_bytes(temporary, data)
        os.link(temporary, path)  # Unlike a rename, it fails if there is a file.
    except FileExistsError:
        return None
    finally:
        temporary.unlink(missing_ok=True)
    return version(path)


def walk(directory: Path) -> Iterator[tuple[str, int]]:
    """All files below a directory: their names relative to it, and their bytes."""
    for folder, _, names in os.walk(directory):
        for name in names:
            file = Path(folder, name)
            yield file.relative_to(directory).as_posix(), file.stat().st_size
