"""A trace of what devices and host do during some steps, for TensorBoard's profiler."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import jax
from etils import epath

from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket


class Trace:
    """Traces a range of steps into a directory; it ends with the run if that ends earlier.

    Steps that an earlier start took are not traced again.
    """

    def __init__(self, steps: range, directory: epath.Path):
        self._steps, self._directory = steps, directory
        self._local: tempfile.TemporaryDirectory[str] | None = None
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
            if is_bucket(self._directory):
                self._local = tempfile.TemporaryDirectory(prefix="vit_jax_profile_")
            jax.profiler.start_trace(self._local.name if self._local else self._directory)
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
            if self._local is not None:
                with self._local as local:  # The profiler writes to disks only.
                    for name in objects.list_files(local):
                        content = objects.read_bytes(Path(local, name))
                        objects.write_bytes(self._directory / name, content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
