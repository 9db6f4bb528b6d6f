"""A trace of what devices and host do during some steps, for TensorBoard's profiler."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import jax


class Trace:
    """Traces a range of steps into a directory; it ends with the run if that ends earlier.

    Steps that an earlier start took are not traced again.
    """

    def __init__(self, steps: range, directory: Path):
        self._steps, self._directory = steps, directory
        self._is_running = False
        self._last: Any = ()

    @contextmanager
    def step(self, step: int) -> Iterator[Callable[[Any], None]]:
        """Around the dispatch of one step; starts or ends the trace if its turn has come.

        Yields:
          A function that takes an output of the step, so that a trace starts after the step before
          it has ended, and ends after its own last step.
        """
        if step in self._steps and not self._is_running:
            jax.block_until_ready(self._last)
            jax.profiler.start_trace(self._directory)
            self._is_running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield self._remember
        if self._is_running and step + 1 not in self._steps:
            jax.block_until_ready(self._last)
            self.close()

    def _remember(self, output: Any) -> None:
        self._last = output

    def close(self) -> None:
        """Ends the trace and writes it, if one is running."""
        if self._is_running:
            jax.profiler.stop_trace()
            self._is_running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
