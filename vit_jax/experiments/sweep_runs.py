"""One run of a sweep: a `train` process of its own, and what it has left.

A fresh process takes no memory from the next one, and a kill of it harms nothing else.
"""

import contextlib
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vit_jax import atomic
from vit_jax.errors import Stopped, UserError
from vit_jax.experiments.sweep_plan import PlannedRun
from vit_jax.reading import read_bytes
from vit_jax.runs.cost import Cost, read_cost

# How `train` ends where a rate is too high.
_DIVERGED = re.compile(r"error: (step \d+: \w+ is (?:nan|-?inf|\S+, more than [^;]+))")
_DIVERGED_FILE = "diverged.txt"
# Ends with the process that started it, even if that is killed; the first argument is its number.
# Only Linux can; elsewhere a run goes on, and the next start waits for it to be ended.
_TIED = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
_ASKED_TO_END = (signal.SIGTERM, signal.SIGHUP)
_LAST_BYTES = 4096


@dataclass(frozen=True)
class Outcome:
    """What a run that has ended gave.

    Attributes:
      scores: of the final weights, such as `test/top1`; empty if the run diverged.
      diverged: the line that says so; None if it did not.
      cost: None if the run's directory lacks it.
    """

    scores: dict[str, float]
    diverged: str | None
    cost: Cost | None


def outcome(run: PlannedRun) -> Outcome | None:
    """What a run gave; None if it has not ended."""
    try:
        if (run.directory / _DIVERGED_FILE).is_file():
            line = read_bytes(run.directory / _DIVERGED_FILE).decode(errors="replace").strip()
            return Outcome({}, line, read_cost(run.directory))
        if not (run.directory / "weights.npz").is_file():
            return None
        facts = json.loads(read_bytes(run.directory / "weights.json"))
        scores = {str(name): float(value) for name, value in facts["scores"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # `train` writes it anew.
    if not facts.get("has_ended", True) or not all(map(math.isfinite, scores.values())):
        return None
    return Outcome(scores, None, read_cost(run.directory))


def carry_out(run: PlannedRun) -> Outcome:
    """Starts or resumes a run, and returns when it has ended.

    Signals that ask this process to end are passed on to the run, which saves its state.

    Raises:
      UserError: the run failed; the line says why, where its log is, and what to type.
      Stopped: SIGTERM or SIGHUP came, and the run has saved what it has.
      KeyboardInterrupt: the run has ended too.
    """
    try:
        run.directory.mkdir(parents=True, exist_ok=True)
        log = open(run.log, "ab")
    except OSError as error:
        raise UserError(
            f"cannot write to {run.directory} ({error.strerror}); free space, change its "
            "permissions, or choose another with --workdir"
        ) from error
    with log:
        code = _run_process(["-m", "vit_jax", "train", *run.arguments], log.fileno())
    ended = outcome(run) if code == 0 else None
    if ended is not None:
        return ended
    last = _last_line(run.log)
    if (diverged := _DIVERGED.match(last)) is not None and code == 2:
        atomic.write_bytes(run.directory / _DIVERGED_FILE, f"{diverged[1]}\n".encode())
        return Outcome({}, diverged[1], read_cost(run.directory))
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed (exit code {code})"
    raise UserError(
        f"run {run.name} {how}: {last or 'it printed nothing'}; its log is {run.log}; the same "
        f"command tries it again, and this runs it alone: {command_of(run)}"
    )


def command_of(run: PlannedRun) -> str:
    """What to type for one run alone."""
    return shlex.join(["python", "-m", "vit_jax", "train", *run.arguments])


def _run_process(arguments: list[str], log: int) -> int:
    """Runs Python to its end; returns its exit code, negative for the signal that ended it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _TIED, str(os.getpid()), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        # Ctrl-C of a terminal reaches this process alone, which passes it on once.
        start_new_session=True,
    )
    with _passed_on(process):
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise KeyboardInterrupt("the same command resumes") from None
        finally:
            if process.poll() is None:
                process.kill()
    for number in _ASKED_TO_END:
        if code in (128 + number, -number):
            raise Stopped("asked to end: the run under way has ended", 128 + number)
    return code


@contextlib.contextmanager
def _passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Passes signals that ask this process to end on to another."""

    def pass_on(number: int, _: object) -> None:
        process.send_signal(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _ASKED_TO_END:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_line(log: Path) -> str:
    """The last line that a run has printed; empty if there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
