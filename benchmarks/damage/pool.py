"""Long-lived processes that run cases, each within a limit of time and of memory.

A process that exceeds a limit is killed, and another one takes its place.
"""

import dataclasses
import json
import os
import queue
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.damage.damages import Case
from benchmarks.damage.outcomes import End

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = os.sysconf("SC_PAGE_SIZE")
# To import, to train the runs that are damaged, and to compile.
_START_SECONDS = 300.0


@dataclass(frozen=True)
class Limits:
    """What one case may take: seconds, and MiB above what the process had before."""

    seconds: float = 20.0
    megabytes: int = 512


@dataclass(frozen=True)
class Result:
    """How a case ended, and what it took."""

    case: Case
    end: End
    detail: str
    seconds: float
    megabytes: int


class Pool:
    """Runs cases in several processes.

    Args:
      root: directory of what is damaged, a sub-directory for each kind.
    """

    def __init__(self, root: Path, limits: Limits, workers: int = 1):
        self._workers = [_Worker(root, limits) for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def prepare(self, kind: str) -> list[Case]:
        """Makes what is damaged, unless it is there, and lists the cases."""
        return [Case(**each) for each in self._workers[0].ask({"prepare": kind})]

    def run(self, cases: Sequence[Case]) -> Iterator[Result]:
        """Runs all cases; gives each result when it is there."""
        free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            free.put(worker)

        def run(case: Case) -> Result:
            worker = free.get()
            try:
                return worker.run(case)
            finally:
                free.put(worker)

        with ThreadPoolExecutor(len(self._workers)) as threads:
            for future in as_completed([threads.submit(run, case) for case in cases]):
                yield future.result()


class _Worker:
    """One process; it is started when it is needed."""

    def __init__(self, root: Path, limits: Limits):
        self._root, self._limits = root, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._warm: set[str] = set()

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer to a request that must succeed."""
        answer = self._exchange(request, Limits(_START_SECONDS, 2**20))
        if isinstance(answer, End):
            raise RuntimeError(f"{request}: {answer}; see above")
        return answer

    def run(self, case: Case) -> Result:
        limits = self._limits
        if case.kind not in self._warm:  # Compiles what this kind needs.
            warm = dataclasses.replace(case, damage="none")
            self.ask({"case": dataclasses.asdict(warm)})
            self._warm.add(case.kind)
        began = time.perf_counter()
        answer = self._exchange({"case": dataclasses.asdict(case)}, limits)
        seconds = time.perf_counter() - began
        if isinstance(answer, End):
            return Result(case, answer, "", seconds, 0)
        end, detail, megabytes = End(answer["end"]), answer["detail"], answer["megabytes"]
        if megabytes > limits.megabytes:
            end, detail = End.MEMORY, f"{megabytes} MiB; {end}: {detail}"
        return Result(case, end, detail, seconds, megabytes)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._warm.clear()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.damage.worker", str(self._root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _environment(self._root),
            cwd=_ROOT,
        )
        if isinstance(_answer(process, Limits(_START_SECONDS, 2**20)), End):
            raise RuntimeError("a worker process does not start; see above")
        return process

    def _exchange(self, request: dict[str, Any], limits: Limits) -> Any:
        """The answer, or how the process failed to give one."""
        if self._process is None:
            self._process = self._start()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = _answer(self._process, limits)
        if isinstance(answer, End):
            self.stop()
        return answer


def _answer(process: subprocess.Popen[bytes], limits: Limits) -> Any:
    assert process.stdout is not None
    until, before = time.monotonic() + limits.seconds, _resident_megabytes(process.pid)
    while not select.select([process.stdout], [], [], 0.02)[0]:
        if time.monotonic() > until:
            return End.TIME
        if _resident_megabytes(process.pid) - before > limits.megabytes:
            return End.MEMORY
    line = process.stdout.readline()
    return json.loads(line) if line else End.DIED


def _resident_megabytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * _PAGE // 2**20


def _environment(root: Path) -> dict[str, str]:
    """Processes compile fast, on the CPU, and share what they have compiled."""
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get(
            "JAX_COMPILATION_CACHE_DIR", str(root / "programs")
        ),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
