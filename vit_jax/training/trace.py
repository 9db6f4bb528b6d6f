"""What the devices and the host do during some steps, for TensorBoard's profiler."""

from pathlib import Path
from typing import Self

import jax


class Trace:
    """Traces a range of steps into a directory; it ends with the run where that ends earlier.

    Steps that an earlier start has taken are not traced again.
    """

    def __init__(self, steps: range, directory: Path):
        self._steps, self._directory = steps, directory
        self._is_running = False

    def turns_after(self, step: int) -> bool:
        """Whether the trace starts or ends after this step, which must then have ended."""
        return (step + 1 in self._steps) != self._is_running

    def start_before(self, step: int) -> None:
        """Starts the trace if this step is in it."""
        if step in self._steps and not self._is_running:
            jax.profiler.start_trace(self._directory)
            self._is_running = True

    def stop_after(self, step: int) -> None:
        """Ends the trace and writes it if the next step is not in it."""
        if step + 1 not in self._steps:
            self._stop()

    def _stop(self) -> None:
        if self._is_running:
            jax.profiler.stop_trace()
            self._is_running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._stop()
