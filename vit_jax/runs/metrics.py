"""Metrics as lines of JSON and as TensorBoard events."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from vit_jax import atomic
from vit_jax.errors import UserError


class MetricsWriter:
    """Appends to `metrics.jsonl` and TensorBoard events in a run's directory.

    Each line is an object: `step`, and names such as `train/loss` with a number. What an earlier
    start wrote after `step` is cut off, for those steps are run again; so are damaged lines.

    Attributes:
      recorded: names of the scalars that an earlier start wrote of `step` itself.

    Raises:
      UserError: the directory cannot be written.
    """

    def __init__(self, directory: Path, step: int):
        try:
            self._open(directory, step)
        except OSError as error:
            raise UserError(
                f"cannot write metrics to {directory} ({error.strerror}); make room or let it be "
                "written, or choose another with --workdir"
            ) from error

    def _open(self, directory: Path, step: int) -> None:
        path = directory / "metrics.jsonl"
        self.recorded: set[str] = set()
        if path.exists():
            lines = _lines_until(path, step)
            atomic.write_bytes(path, b"".join(lines))
            of_step = [scalars for scalars in map(json.loads, lines) if scalars["step"] == step]
            self.recorded.update(*of_step)
        self._file = open(path, "a", encoding="utf-8")
        self._events = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds the scalars of a step; a value that is not finite becomes null in the JSON."""
        finite = {k: v if math.isfinite(v) else None for k, v in scalars.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        """Returns when all lines are on disk; TensorBoard's events follow from their thread."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._events.flush()

    def close(self) -> None:
        """Flushes and lets go of the files."""
        self.flush()
        self._file.close()
        self._events.close()


def read_scalar(directory: Path, name: str) -> list[tuple[int, float]]:
    """The steps and values that `metrics.jsonl` holds of a scalar, in its order; null is NaN."""
    with open(directory / "metrics.jsonl", "rb") as file:
        lines = [json.loads(line) for line in file]
    values = [(line["step"], line[name]) for line in lines if name in line]
    return [(step, math.nan if value is None else value) for step, value in values]


def _lines_until(path: Path, step: int) -> list[bytes]:
    """The whole lines of steps up to `step`."""
    # As bytes, for what a crash leaves behind need not be text.
    with open(path, "rb") as file:
        return [line for line in file if line.endswith(b"\n") and _is_until(line, step)]


def _is_until(line: bytes, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False
