"""Metrics as lines of JSON and as TensorBoard events."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from vit_jax import atomic


class MetricsWriter:
    """Appends to `metrics.jsonl` and TensorBoard events in a run's directory.

    Each line is an object: `step`, and names such as `train/loss` with a number. What an earlier
    start wrote after `step`, a torn last line included, is cut off: those steps are run again.
    """

    def __init__(self, directory: Path, step: int):
        path = directory / "metrics.jsonl"
        if path.exists():
            atomic.write_bytes(path, "".join(_lines_until(path, step)).encode())
        self._file = open(path, "a", encoding="utf-8")
        self._events = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds the scalars of a step; a value that is not finite becomes null in the JSON."""
        finite = {k: v if math.isfinite(v) else None for k, v in scalars.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        """Returns when all that was written is on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._events.flush()

    def close(self) -> None:
        """Flushes and lets go of the files."""
        self.flush()
        self._file.close()
        self._events.close()


def _lines_until(path: Path, step: int) -> list[str]:
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if not line.endswith("\n") or json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line)
    return kept
