"""Work that is done piece by piece, in several processes or in this one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from vit_jax.data.workers import in_workers


class Task(Protocol):
    """Pieces of work by number. Processes get a pickled copy."""

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


def each_piece(task: Task, count: int, workers: int) -> Iterator[dict[str, Any]]:
    """Yields `task[0]` to `task[count - 1]`, in order.

    Args:
      workers: processes; 0 is this one.

    Raises:
      UserError: a process was killed.
    """
    if workers:
        yield from in_workers(task, 0, count, min(workers, count), option="--workers")
    else:
        for index in range(count):
            yield task[index]
