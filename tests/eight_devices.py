"""One process of eight simulated devices, for all tests of this process that need one."""

import functools
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from tests.real_processes import COMPILE_FAST

P = ParamSpec("P")
T = TypeVar("T")

FLAGS = f"--xla_force_host_platform_device_count=8 {COMPILE_FAST}"


class EightDevices:
    """Runs functions of importable modules, one after the other, in the other process.

    Arguments and results travel pickled, as NumPy arrays or plain values. An exception there
    is an AssertionError here, with the other process's traceback.
    """

    def __init__(self, pool: ProcessPoolExecutor, log: Path) -> None:
        self._pool = pool
        self._log = log

    def run(self, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Returns what `function` returns there; what it prints shows where a test fails.

        XLA must not gather an activation whole for lack of a better way.
        """
        seen = self._log.stat().st_size
        call = functools.partial(function, *args, **options)
        try:
            result = self._pool.submit(_run, call).result(timeout=600)
        finally:
            printed = self._log.read_text()[seen:]
            print(printed, file=sys.stderr)
        assert "Involuntary full rematerialization" not in printed
        return result


@contextmanager
def eight_devices(log: Path) -> Iterator[EightDevices]:
    """Starts the process, whose output goes to the file `log`, and ends it."""
    log.touch()
    with (
        pytest.MonkeyPatch.context() as environment,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (log,)) as pool,
    ):
        environment.setenv("XLA_FLAGS", FLAGS)
        assert pool.submit(_count).result(timeout=300) == 8
        environment.undo()
        yield EightDevices(pool, log)


def _begin(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _run(call: Callable[[], T]) -> T:
    try:
        return call()
    except Exception:
        # As text, since some of JAX's exceptions cannot be pickled.
        raise AssertionError(traceback.format_exc()) from None


def _count() -> int:
    import jax

    return jax.device_count()
