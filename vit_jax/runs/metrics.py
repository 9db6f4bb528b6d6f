"""A run's metrics as lines of JSON."""

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from vit_jax.errors import NotSavedError, StorageError, TakenOverError, UserError
from vit_jax.reading import other_kind
from vit_jax.runs.appending import open_growing, piece_name, pieces
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path, is_bucket

# Pieces in a bucket that are read side by side: a run of a million lines has some hundred.
_READERS = 16


class MetricsWriter:
    """Appends to `metrics.jsonl` in a run's directory; in a bucket, further pieces follow it.

    Each line is an object: `step`, and names such as `train/loss` with a number. A start from a
    checkpoint cuts off what an earlier start wrote after `step`, since those steps are taken again,
    and drops damaged lines. Of `step` itself, names that are in the file are not written twice.

    Raises:
      UserError: the directory cannot be written.
    """

    def __init__(self, directory: str | os.PathLike[str], step: int):
        self._path = as_path(directory) / "metrics.jsonl"
        with self._advising():
            self._open(step)

    def cut(self, step: int) -> None:
        """Cuts off what was written after a step, as another start from its checkpoint would.

        Raises:
          UserError: the directory cannot be written.
        """
        with self._advising():
            self._file.close()
            self._open(step)

    @contextlib.contextmanager
    def _advising(self) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            raise UserError(
                f"cannot write metrics to {self._path.parent} ({error.strerror}); free space, "
                "change its permissions, or choose another with --workdir"
            ) from error

    def _open(self, step: int) -> None:
        path, self._step, self._written = self._path, step, set[str]()
        is_there = not is_bucket(path) and os.path.exists(path)
        if is_there and (kind := other_kind(os.stat(path).st_mode)) is not None:
            raise UserError(f"{path} is {kind}; remove it, or restore it")
        number, lines = _cut_pieces(path, step) if is_bucket(path) else (0, _cut_file(path, step))
        self._file = open_growing(path, number=number, content=b"".join(lines))
        # The lines of a step may begin in an earlier piece.
        while not self._add_written(lines) and number:
            number -= 1
            lines = _whole_lines(objects.read_bytes(piece_name(path, number)), step)

    def _add_written(self, lines: list[bytes]) -> bool:
        """Notes what the last lines hold of this step; whether an earlier step precedes them."""
        for scalars in map(json.loads, reversed(lines)):
            if scalars["step"] < self._step:
                return True
            self._written.update(scalars)
        return False

    def write(self, step: int, scalars: Mapping[str, float]) -> dict[str, float]:
        """Adds the scalars of a step; a value that is not finite becomes null.

        Returns:
          The scalars that were not in the file yet.
        """
        if step == self._step:
            scalars = {k: v for k, v in scalars.items() if k not in self._written}
        if scalars:
            finite = {k: v if math.isfinite(v) else None for k, v in scalars.items()}
            self._file.add((json.dumps({"step": step, **finite}) + "\n").encode())
        return dict(scalars)

    def flush(self) -> None:
        """Returns when all lines are on disk.

        Raises:
          NotSavedError: there is no room; the lines are kept for the next call.
        """
        with self._explaining():
            self._file.flush()

    def close(self) -> None:
        """Flushes and closes the file.

        Raises:
          NotSavedError: as `flush`.
        """
        with self._explaining():
            self._file.close()

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except TakenOverError:
            raise
        except OSError as error:
            raise NotSavedError(f"{self._path} cannot be written ({error.strerror})") from error


def read_metrics(directory: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` in their order, without damaged ones; null becomes NaN."""
    path = as_path(directory) / "metrics.jsonl"
    if not is_bucket(path) and not os.path.isfile(path):
        return []
    lines = [json.loads(line) for line in _lines_until(path, pieces(path), sys.maxsize)]
    return [{k: math.nan if v is None else v for k, v in line.items()} for line in lines]


def _cut_file(path: epath.Path, step: int) -> list[bytes]:
    """Cuts a file on a disk; puts pieces that were copied from a bucket into it."""
    joined, numbers = path.with_name(f"{path.name}.joined"), pieces(path)
    if joined.exists():  # An earlier start was killed while it did what follows.
        lines = _whole_lines(objects.read_bytes(joined), step)
    else:
        lines = _lines_until(path, numbers, step)
    if any(numbers):
        objects.write_bytes(joined, b"".join(lines))
    if numbers or lines:
        objects.write_bytes(path, b"".join(lines))
    for number in filter(None, numbers):
        objects.delete(piece_name(path, number))
    objects.delete(joined)
    return lines


def _cut_pieces(path: epath.Path, step: int) -> tuple[int, list[bytes]]:
    """Cuts the newest pieces in a bucket; gives the one to go on with, and its lines."""
    for number in reversed(pieces(path)):
        piece = piece_name(path, number)
        content = objects.read_bytes(piece)
        lines = _whole_lines(content, step)
        if not lines and number:
            objects.delete(piece)
            continue
        if (cut := b"".join(lines)) != content:
            objects.write_bytes(piece, cut)
        return number, lines
    return 0, []


def _lines_until(path: epath.Path, numbers: list[int], step: int) -> list[bytes]:
    """The whole lines of steps up to `step` in the pieces of a file."""
    with ThreadPoolExecutor(_READERS) as pool:
        contents = pool.map(lambda number: objects.read_bytes(piece_name(path, number)), numbers)
        return [line for content in contents for line in _whole_lines(content, step)]


def _whole_lines(content: bytes, step: int) -> list[bytes]:
    # As bytes: what a crash leaves behind need not be text.
    return [line for line in io.BytesIO(content) if line.endswith(b"\n") and _is_until(line, step)]


def _is_until(line: bytes, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
