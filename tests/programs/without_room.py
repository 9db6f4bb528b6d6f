"""A command whose process 0 has no room for metrics, then process 1 none for a checkpoint."""

import shutil
import sys
from typing import Any

import jax

from vit_jax.__main__ import main
from vit_jax.errors import NotSavedError
from vit_jax.runs.checkpoints import Checkpoints
from vit_jax.runs.metrics import MetricsWriter

_flush, _check_room = MetricsWriter.flush, Checkpoints._check_room
calls = {"flush": 0, "room": 0}


def flush(self: MetricsWriter) -> None:
    """Fails the first time."""
    calls["flush"] += 1
    if calls["flush"] == 1:
        raise NotSavedError("metrics.jsonl cannot be written (No space left on device)")
    _flush(self)


def check_room(self: Checkpoints, step: int, state: Any) -> None:
    """Sees a full disk the first time."""
    calls["room"] += 1
    usage = shutil.disk_usage
    if calls["room"] == 1 and jax.process_index() == 1:
        shutil.disk_usage = lambda path: usage(path)._replace(free=0)
    try:
        _check_room(self, step, state)
    finally:
        shutil.disk_usage = usage


if __name__ == "__main__":
    MetricsWriter.flush = flush  # type: ignore[method-assign]
    Checkpoints._check_room = check_room  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
