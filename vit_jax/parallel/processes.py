"""Several processes as one run, and the notice that a run must end."""

import argparse
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

from vit_jax.errors import INTERRUPTED, Stopped, UserError

# A process that has not been heard of for so long is taken for dead, and the others end too.
_HEARTBEAT_SECONDS = 30
_JOIN_SECONDS = 300

# How many processes a launcher started together, as it tells each of them.
_TASK_COUNTS = {"Slurm": "SLURM_STEP_NUM_TASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}

# What JAX says where a collective breaks, or where processes are heard of no more.
_PEER_IS_GONE = re.compile("(?i:gloo|nccl|coordination)|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED")

_log = logging.getLogger(__name__)


def join_processes(
    coordinator_address: str | None,
    num_processes: int | None,
    process_id: int | None,
    distributed: bool = False,
) -> None:
    """Makes this process one of several that train together; must come before any use of JAX.

    Without any of the four, it stays alone; that is said where a launcher has started others too.

    Args:
      coordinator_address: `HOST:PORT` of process 0, as all processes reach it.
      num_processes: how many there are.
      process_id: this one's number, from 0.
      distributed: whether to take the other three from what launched the processes, as
        `jax.distributed.initialize` finds it. On GPUs, Slurm's and Open MPI's processes then have
        one device each.

    Raises:
      UserError: some of the first three are missing or do not fit; no launcher is found; the
        others cannot be reached; or it stays alone on one of a TPU slice's hosts.
    """
    explicit = (coordinator_address, num_processes, process_id)
    if distributed:
        if explicit != (None, None, None):
            raise UserError(
                "--distributed takes address, number and id from the launcher: leave out "
                "--coordinator_address, --num_processes and --process_id, or --distributed"
            )
        _join_launched()
    elif coordinator_address is not None and num_processes is not None and process_id is not None:
        if num_processes < 1:
            raise UserError(f"--num_processes={num_processes} must be at least 1")
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"--process_id={process_id} must be from 0 to {num_processes - 1}, for "
                f"--num_processes={num_processes}"
            )
        _join_given(coordinator_address, num_processes, process_id)
    elif explicit != (None, None, None):
        raise UserError(
            "--coordinator_address, --num_processes and --process_id go together: give all three"
        )
    elif jax.process_count() > 1 and not jax.distributed.is_initialized():
        # The hosts of a TPU slice are one even so, but could agree on nothing but computations.
        raise UserError(
            f"this is one of {jax.process_count()} processes that share a TPU slice: start the "
            "command on all of them, with --distributed"
        )
    elif (apart := launched_apart()) is not None:
        # As it may be meant: each may have a directory of its own.
        _log.warning("%s: for one run of all of them, add --distributed", apart)


def _join_given(coordinator_address: str, num_processes: int, process_id: int) -> None:
    problem = f"cannot join the {num_processes} processes at {coordinator_address}"
    advice = "check that all of them are started with the same address and number"
    try:
        with _ending_after(_JOIN_SECONDS, f"{problem} in {_JOIN_SECONDS} s; {advice}"):
            _initialize(
                coordinator_address=coordinator_address,
                num_processes=num_processes,
                process_id=process_id,
                # Else a launcher, if there is one, would still be asked which devices are whose.
                cluster_detection_method="deactivate",
            )
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"{problem} ({_one_line(error)}); {advice}") from error


def _join_launched() -> None:
    problem = "--distributed: cannot join the processes that were launched"
    advice = "check that all of them run this command and reach the first one"
    try:
        with _ending_after(_JOIN_SECONDS, f"{problem} in {_JOIN_SECONDS} s; {advice}"):
            _initialize()
    except ValueError as error:
        raise UserError(
            f"--distributed: nothing here says which process this is ({_one_line(error)}); JAX "
            "asks Slurm's srun, Open MPI's mpirun, TPU slices and, with the package kubernetes, "
            "jobs of Kubernetes; elsewhere give --coordinator_address, --num_processes and "
            "--process_id"
        ) from error
    # Each launcher is asked in a way of its own, which fails in ways of its own.
    except Exception as error:
        raise UserError(f"{problem} ({_one_line(error)}); {advice}") from error


def _initialize(**who: Any) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        **who,
        initialization_timeout=_JOIN_SECONDS + 60,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )


@contextmanager
def _ending_after(seconds: float, message: str) -> Iterator[None]:
    """Ends the process in an error when the body takes too long; later JAX would abort it."""

    def end() -> None:
        print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def launched_apart() -> str | None:
    """Says that a launcher started this process as one of several that have not joined, if so."""
    for launcher, variable in _TASK_COUNTS.items():
        tasks = os.environ.get(variable, "")
        if tasks.isdecimal() and int(tasks) > 1 and not jax.distributed.is_initialized():
            return f"{launcher} has started {tasks} processes, each of which is alone"
    return None


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that make a command one of several processes; see `join_processes`."""
    group = parser.add_argument_group("several processes, each started with the same command")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="how many there are and which one this is says what launched them: Slurm, Open MPI, "
        "Kubernetes or a TPU slice; elsewhere:",
    )
    group.add_argument("--coordinator_address", metavar="HOST:PORT", help="where process 0 is")
    group.add_argument("--num_processes", type=int, help="how many there are")
    group.add_argument("--process_id", type=int, help="which one this is, from 0")


@contextmanager
def ending_together() -> Iterator[None]:
    """Around all work of one of several processes: whatever ends it early ends the others too.

    An interpreter that exits waits for the others to exit as well, and these may be waiting for it
    in a collective; so a process that fails leaves at once, and they notice and fail in turn.
    """
    try:
        yield
    except Stopped:
        raise  # All of them stop here, after the same step.
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        code = _explain(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _explain(error: BaseException) -> int:
    """Says what has ended this process, and returns its exit code."""
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        print(INTERRUPTED, file=sys.stderr)
        return 130
    if isinstance(error, jax.errors.JaxRuntimeError) and _PEER_IS_GONE.search(str(error)):
        reason = str(error).partition("\n")[0]
        print(f"error: another process has ended, so this one does too ({reason})", file=sys.stderr)
    else:
        traceback.print_exception(error)
    return 1


class Preemption:
    """Hears SIGTERM, and agrees with the other processes on the moment to stop.

    A notice to any one process counts for all. While this is open, SIGTERM does not end the
    process; without it, as before the first step, there is nothing to save and it does.
    """

    def __init__(self) -> None:
        self._asked = False
        self._calls = 0
        self._previous: Any = None

    def reached(self) -> bool:
        """Whether to stop now; every process must call this at the same points of its way."""
        self._calls += 1
        if jax.process_count() > 1:
            # JAX listens for SIGTERM itself, and agrees on the first call that none has passed.
            self._asked |= multihost_utils.reached_preemption_sync_point(self._calls)
        return self._asked

    def __enter__(self) -> Self:
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *_) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _on_signal(self, *_) -> None:
        self._asked = True
