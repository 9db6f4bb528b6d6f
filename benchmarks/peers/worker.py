"""A process for each contender, so that none has the other's threads, memory or libraries.

Between its turns a process sleeps.
"""

import importlib
import multiprocessing
import os
import time
import traceback
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

from benchmarks.peers.case import CONTENDERS, Case, Work


class Timed(NamedTuple):
    """What a turn took and returned.

    Attributes:
      cpu: seconds of all threads, and of what compilers it started.
      wall: seconds.
    """

    cpu: float
    wall: float
    values: list[float]


class OutOfDeviceMemory(Exception):
    """A case does not fit."""


class Failed(Exception):
    """A contender raised an error, such as one for a kernel that this device lacks."""


class Worker:
    """A contender in a process of its own, with its libraries imported."""

    def __init__(self, contender: str):
        self.contender = contender
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(contender, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._ask("ready")

    def start(self, case: Case, *, fresh: bool = False) -> Timed:
        """Takes up a case and does it once, compilation included.

        Args:
          fresh: draws the parameters as the contender does; otherwise they are everyone's.
        """
        return self._ask("start", case, fresh)

    def run(self, count: int) -> Timed:
        """Does the case `count` times."""
        return self._ask("run", count)

    def describe(self) -> Any:
        """What the contender's libraries see: (platform, device's kind, versions)."""
        return self._ask("describe")

    def _ask(self, *question: Any) -> Any:
        self._pipe.send(question)
        kind, answer = self._pipe.recv()
        if kind == "memory":
            raise OutOfDeviceMemory(answer)
        if kind == "error":
            raise Failed(f"{self.contender}: {answer}")
        return answer

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipe.close()
        self._process.join(timeout=20)
        if self._process.is_alive():
            self._process.kill()


def _serve(contender: str, pipe: Connection) -> None:
    """Answers until the pipe ends."""
    name, options = CONTENDERS[contender]
    module = importlib.import_module(name)
    work: Work | None = None

    def start(case: Case, fresh: bool) -> Timed:
        nonlocal work
        params = None if fresh else case.params()

        def first() -> list[float]:
            nonlocal work
            work = module.make(case, params, **options)
            return work.run(1)

        return _timed(first)

    def run(count: int) -> Timed:
        assert work is not None
        started = work
        return _timed(lambda: started.run(count))

    answers = {"ready": lambda: None, "start": start, "run": run, "describe": module.describe}
    while True:
        try:
            name, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("answer", answers[name](*arguments)))
        except Exception as error:
            is_memory = "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
            pipe.send(("memory" if is_memory else "error", traceback.format_exc()))


def _timed(function: Any) -> Timed:
    began, cpu = time.perf_counter(), _cpu_seconds()
    values = function()
    return Timed(_cpu_seconds() - cpu, time.perf_counter() - began, values)


def _cpu_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system
