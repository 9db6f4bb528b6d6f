"""Files that appear whole or not at all."""

import glob
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces a file in one step, once its new content is safely on the disk."""
    write_all({path: lambda file: file.write(data)})


def write_all(writers: Mapping[Path, Callable[[IO[bytes]], object]]) -> None:
    """Writes all files under temporary names, then puts them in place in the given order."""
    temporaries = {path: _temporary(path, str(os.getpid())) for path in writers}
    try:
        for path, write in writers.items():
            with open(temporaries[path], "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
            _sync_directory(path.parent)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Removes what processes that were killed have left of a file; nobody may be writing it now."""
    for left in path.parent.glob(_temporary(Path(glob.escape(path.name)), "*").name):
        left.unlink(missing_ok=True)


def _temporary(path: Path, process: str) -> Path:
    return path.with_name(f".{path.name}.{process}.tmp")


def _sync_directory(directory: Path) -> None:
    """Makes a rename survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
