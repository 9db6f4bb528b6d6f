"""Shows how far a preparation is: a bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
from tqdm import tqdm

_EVERY_S, _LINES_EVERY_S = 1.0, 30.0

_log = logging.getLogger(__name__)


class Lines:
    """Logs a line on how far work is, at most one in half a minute."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def say(self, what: str, done: float, total: float) -> None:
        """Logs `what` and the share that is done, if it is time to."""
        if time.monotonic() - self._told >= _LINES_EVERY_S:
            _log.info("%s: %.0f %%", what, 100 * done / total)
            self._told = time.monotonic()


class Counts:
    """Records of each shard that are dealt with, in a file that all processes map into memory.

    Args:
      path: of the file, which is made if it is missing.
      shards: how many there are.
    """

    def __init__(self, path: Path, shards: int) -> None:
        if not path.exists():
            np.zeros((2, shards), "<i8").tofile(path)
        self._values = np.memmap(path, "<i8", "r+", shape=(2, shards))

    def set(self, shard: int, records: int) -> None:
        """States how many records of a shard were dealt with by this start."""
        self._values[0, shard] = records

    def set_found(self, shard: int, records: int) -> None:
        """States that a former start has finished a shard."""
        self._values[1, shard] = records

    @property
    def now(self) -> int:
        """Records that this start has dealt with."""
        return int(self._values[0].sum())

    @property
    def before(self) -> int:
        """Records in the shards of former starts."""
        return int(self._values[1].sum())


@contextlib.contextmanager
def shown(counts: Counts, total: int) -> Iterator[None]:
    """While this is open, shows the counts, the speed and the time left.

    Args:
      total: records of all shards.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(counts, total, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def line(now: int, before: int, total: int, seconds: float) -> str:
    """Such as `3,000 of 10,000 images, 500 img/s, 0:00:14 left`.

    Args:
      now, before: as in `Counts`.
      seconds: since this start began.
    """
    text = f"{now + before:,} of {total:,} images"
    speed = now / seconds if seconds > 0 else 0.0
    if speed:
        left = timedelta(seconds=round((total - now - before) / speed))
        text += f", {speed:,.0f} img/s, {left} left"
    return text


def _show(counts: Counts, total: int, ended: threading.Event) -> None:
    began = told = time.monotonic()
    bar = None
    if sys.stderr.isatty():
        bar = tqdm(total=total, bar_format="{desc} |{bar:20}|", leave=True)
    while not ended.wait(_EVERY_S):
        now, before, at = counts.now, counts.before, time.monotonic()
        if bar is not None:
            bar.set_description_str(line(now, before, total, at - began), refresh=False)
            bar.update(now + before - bar.n)
        elif at - told >= _LINES_EVERY_S:
            _log.info("%s", line(now, before, total, at - began))
            told = at
    if bar is not None:
        bar.close()
