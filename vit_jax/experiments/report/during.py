"""The report of a run while it trains, and when it has ended."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from vit_jax.experiments.report.page import write_report
from vit_jax.experiments.report.record import is_training

# Drawing takes no more than this share of the time.
_SHARE = 0.02
# Seconds for scoring the images one by one after training. Whoever wants to wait longer calls
# `report`.
_SECONDS = 60.0


class RunReport:
    """A callback that keeps `report.html` in a run's directory up to date, after evaluations."""

    def __init__(self, workdir: str | os.PathLike[str]):
        self._workdir = Path(workdir).expanduser()
        self._file = self._workdir / "report.html"
        self._next = 0.0

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the page if these are scores, and if the last time was long enough ago."""
        del step
        began = time.monotonic()
        if all(map(is_training, values)) or began < self._next:
            return
        write_report([self._workdir], self._file, seconds=0)
        ended = time.monotonic()
        self._next = ended + (ended - began) / _SHARE

    def close(self) -> None:
        """Leaves the page as it is."""

    def finish(self) -> Path:
        """Writes the page of a run that has ended, with its images, unless it is there already."""
        weights = self._workdir / "weights.npz"
        if not self._file.exists() or self._file.stat().st_mtime < weights.stat().st_mtime:
            write_report([self._workdir], self._file, seconds=_SECONDS)
        return self._file
