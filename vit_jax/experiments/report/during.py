"""The report of a run while it trains, and when it has ended."""

import math
import os
import time
from collections.abc import Mapping

from etils import epath

from vit_jax.experiments.report.page import write_report
from vit_jax.experiments.report.record import is_training
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path

# Drawing takes no more than this share of the time.
_SHARE = 0.02
# Seconds for scoring the images one by one after training. Whoever wants to wait longer calls
# `report`.
_SECONDS = 60.0
# Opening and compiling the model, and drawing its images, beside a page without them.
_IMAGES_SECONDS = 15.0
# A page without images, until one was timed.
_PAGE_SECONDS = 10.0


class RunReport:
    """A callback that keeps `report.html` in a run's directory up to date, after evaluations.

    After training, `finish` writes it with the images. A start with `max_minutes` leaves the time.
    """

    def __init__(self, workdir: str | os.PathLike[str]):
        self._workdir = as_path(workdir)
        self._file = self._workdir / "report.html"
        self._next = 0.0
        self._page_seconds = _PAGE_SECONDS
        self._end = math.inf

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the page if these are scores, and if the last time was long enough ago."""
        del step
        began = time.monotonic()
        if all(map(is_training, values)) or began < self._next:
            return
        write_report([self._workdir], self._file, seconds=0)
        ended = time.monotonic()
        self._page_seconds = ended - began
        self._next = ended + self._page_seconds / _SHARE

    def seconds_later(self, evaluation: float) -> float:
        """What `finish` takes."""
        return self._page_seconds + _IMAGES_SECONDS + min(evaluation, _SECONDS)

    def ends_at(self, moment: float) -> None:
        """Sets when `finish` must be done, by `time.monotonic`."""
        self._end = moment

    def close(self) -> None:
        """Leaves the page as it is."""

    def finish(self) -> epath.Path:
        """Writes the page of a run that has ended, unless it is there already.

        Its images are left out if the time is too short for them.
        """
        weights = self._workdir / "weights.npz"
        is_there = objects.exists(self._file)
        if not is_there or objects.modified(self._file) < objects.modified(weights):
            left = self._end - time.monotonic() - self._page_seconds - _IMAGES_SECONDS
            write_report([self._workdir], self._file, seconds=max(0.0, min(left, _SECONDS)))
        return self._file
