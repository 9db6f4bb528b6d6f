"""A run's metrics as lines of JSON."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vit_jax import atomic
from vit_jax.errors import NotSavedError, UserError
from vit_jax.reading import other_kind
from vit_jax.runs.appending import Appended


class MetricsWriter:
    """Appends to `metrics.jsonl` in a run's directory.

    Each line is an object: `step`, and names such as `train/loss` with a number. A start from a
    checkpoint cuts off what an earlier start wrote after `step`, since those steps are taken again,
    and drops damaged lines. Of `step` itself, names that are in the file are not written twice.

    Raises:
      UserError: the directory cannot be written.
    """

    def __init__(self, directory: Path, step: int):
        self._path = directory / "metrics.jsonl"
        self._cut(step)

    def cut(self, step: int) -> None:
        """Cuts off what was written after a step, as another start from its checkpoint would.

        Raises:
          UserError: the directory cannot be written.
        """
        self._file.close()
        self._cut(step)

    def _cut(self, step: int) -> None:
        try:
            self._open(step)
        except OSError as error:
            raise UserError(
                f"cannot write metrics to {self._path.parent} ({error.strerror}); free space, "
                "change its permissions, or choose another with --workdir"
            ) from error

    def _open(self, step: int) -> None:
        path, self._step, self._written = self._path, step, set[str]()
        if path.exists():
            if (kind := other_kind(path.stat().st_mode)) is not None:
                raise UserError(f"{path} is {kind}; remove it, or restore it")
            lines = _lines_until(path, step)
            atomic.write_bytes(path, b"".join(lines))
            for scalars in map(json.loads, lines):
                if scalars["step"] == step:
                    self._written.update(scalars)
        self._file = Appended(path)

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
        except OSError as error:
            raise NotSavedError(f"{self._path} cannot be written ({error.strerror})") from error


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` in their order, without damaged ones; null becomes NaN."""
    path = directory / "metrics.jsonl"
    lines = [json.loads(line) for line in _lines_until(path, sys.maxsize)] if path.is_file() else []
    return [{k: math.nan if v is None else v for k, v in line.items()} for line in lines]


def _lines_until(path: Path, step: int) -> list[bytes]:
    """The whole lines of steps up to `step`."""
    # As bytes: what a crash leaves behind need not be text.
    with open(path, "rb") as file:
        return [line for line in file if line.endswith(b"\n") and _is_until(line, step)]


def _is_until(line: bytes, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
