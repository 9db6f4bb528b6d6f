"""Several processes as one run: how they join, and how they hear that the run must end."""

import ipaddress
import logging
import os
import signal
import socket
import threading
import time
from typing import Any, Self

import jax
from jax._src import distributed as jax_distributed
from jax._src.clusters import ClusterEnv
from jax.experimental import multihost_utils

from vit_jax.errors import UserError
from vit_jax.parallel import waiting
from vit_jax.parallel.agreement import check_same

# A process that has not been heard of for this long counts as dead, and the others end too.
_HEARTBEAT_SECONDS = 30
# How long processes wait for each other at the start.
JOIN_SECONDS = 300.0
# How long the name of process 0's host may be unknown.
NAME_SECONDS = 60.0

# How many processes a launcher started together, as it tells each of them.
_TASK_COUNTS = {"Slurm": "SLURM_STEP_NUM_TASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}

_log = logging.getLogger(__name__)


def join_processes(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    distributed: bool = False,
    limit: float = JOIN_SECONDS,
) -> None:
    """Makes this process one of several that train together; call it before any use of JAX.

    Without any of the first four, the process stays alone. If a launcher started other processes
    too, a warning is logged. While it waits for the others, it logs for whom and at which address.

    Args:
      coordinator_address: `HOST:PORT` of process 0, as all processes reach it.
      num_processes: the number of processes.
      process_id: the number of this process, from 0.
      distributed: whether to take the other three from the launcher, as
        `jax.distributed.initialize` finds them. On GPUs, each process of Slurm or Open MPI then
        has one device.
      limit: seconds to wait for the others.

    Raises:
      UserError: some of the first three are missing or do not fit; no launcher is found; the
        others are not reached in time; or the process would stay alone on one of the hosts of a
        TPU slice.
    """
    given = (coordinator_address, num_processes, process_id)
    if distributed:
        if given != (None, None, None):
            raise UserError(
                "--distributed takes address, number and id from the launcher: leave out "
                "--coordinator_address, --num_processes and --process_id, or --distributed"
            )
        _join_launched(limit)
    elif coordinator_address is not None and num_processes is not None and process_id is not None:
        _check_numbers(num_processes, process_id)
        _join_given(coordinator_address, num_processes, process_id, limit)
    elif given != (None, None, None):
        raise UserError(
            "--coordinator_address, --num_processes and --process_id go together: give all three"
        )
    elif jax.process_count() > 1 and not jax.distributed.is_initialized():
        # The hosts of a TPU slice compute together even so, but could agree on nothing else.
        raise UserError(
            f"this is one of {jax.process_count()} processes that share a TPU slice: start the "
            "command on all of them, with --distributed"
        )
    elif (apart := launched_apart()) is not None:
        # It may be meant: each process may have a directory of its own.
        _log.warning("%s: for one run of all of them, add --distributed", apart)


def _check_numbers(num_processes: int, process_id: int) -> None:
    if num_processes < 1:
        raise UserError(f"--num_processes={num_processes} must be at least 1")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id} must be from 0 to {num_processes - 1}, for "
            f"--num_processes={num_processes}"
        )


def _join_given(address: str, num_processes: int, process_id: int, limit: float) -> None:
    advice = "check that all of them are started with the same address and number"
    try:
        _initialize(
            limit,
            advice,
            " in --coordinator_address",
            coordinator_address=address,
            coordinator_bind_address=_bind_address(address),
            num_processes=num_processes,
            process_id=process_id,
            # Otherwise JAX would still ask a launcher, if there is one, which devices are whose.
            cluster_detection_method="deactivate",
        )
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"cannot join the {num_processes} processes at {address} ({_one_line(error)}); {advice}"
        ) from error
    # JAX takes the number from process 0, and does not compare.
    check_same({"num_processes": num_processes}, "another number of processes", advice)


def _join_launched(limit: float) -> None:
    advice = (
        "check that all of them run this command and reach process 0; otherwise give "
        "--coordinator_address, --num_processes and --process_id in place of --distributed"
    )
    try:
        address = _address_on_one_machine(limit)
        bind = None if address is None else _bind_address(address)
        _initialize(
            limit,
            advice,
            ", as in JAX_COORDINATOR_ADDRESS=10.0.0.1:12345 on all of them",
            coordinator_address=address,
            coordinator_bind_address=bind,
        )
    except UserError as error:
        raise UserError(f"--distributed: {error}") from error
    except ValueError as error:
        raise UserError(
            f"--distributed: no launcher found ({_one_line(error)}); known are Slurm's srun, Open "
            "MPI's mpirun, TPU slices and, with the package kubernetes, jobs of Kubernetes; "
            "elsewhere give --coordinator_address, --num_processes and --process_id"
        ) from error
    # Each launcher is asked in its own way, which fails in its own ways.
    except Exception as error:
        raise UserError(
            f"--distributed: cannot join the launched processes ({_one_line(error)}); {advice}"
        ) from error


def _bind_address(address: str) -> str | None:
    """Where process 0 listens: on the loopback if all reach it there, otherwise JAX's default.

    That is every interface of the machine, and anyone who reaches the port can end the run.
    """
    host, _, port = address.rpartition(":")
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host.strip("[]"), None)}
    except (OSError, UnicodeError):
        return None  # What is wrong with the name is told when JAX has tried it.
    if not found or not all(ipaddress.ip_address(each).is_loopback for each in found):
        return None
    return f"{host}:{port}"


def _address_on_one_machine(limit: float) -> str | None:
    """The address of process 0 on the loopback, if the launcher's processes share one machine."""
    ranks = os.environ.get("OMPI_COMM_WORLD_SIZE")
    is_one = (
        os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == ranks is not None
        or os.environ.get("SLURM_STEP_NUM_NODES") == "1"
    )
    if not is_one:
        return None
    # JAX has no public way to ask the launcher for the address without joining.
    address, *_ = ClusterEnv.auto_detect_unset_distributed_params(None, 1, 0, [], None, int(limit))
    return None if address is None else f"localhost:{address.rpartition(':')[2]}"


def _initialize(limit: float, advice: str, by_address: str, **who: Any) -> None:
    """Calls `jax.distributed.initialize` in a thread, so that the wait is reported and can end.

    Args:
      advice: what to do if the others do not come.
      by_address: how to give the IP address of process 0.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    failures: list[BaseException] = []

    def join() -> None:
        try:
            jax.distributed.initialize(
                **who,
                # JAX ends the process at its own limit, so ours must come first.
                initialization_timeout=int(limit) + 60,
                heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            )
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=join, name="join_processes", daemon=True)
    thread.start()
    began = time.monotonic()
    # A pod of Kubernetes has its name only when it is scheduled, which may take minutes.
    name_limit = limit if "KUBERNETES_SERVICE_HOST" in os.environ else min(NAME_SECONDS, limit)
    for report_at in _report_times(limit, name_limit):
        thread.join(began + report_at - time.monotonic())
        if not thread.is_alive():
            break
        state = waiting.describe(*_joining())
        if report_at >= name_limit and _is_unknown():
            raise UserError(
                f"gave up after {report_at:.0f} s: {state}; enter it in the DNS or in /etc/hosts, "
                f"or give the IP address of that host{by_address}"
            )
        if report_at >= limit:
            raise UserError(f"gave up after {limit:.0f} s: {state}; {advice}")
        _log.warning("%s (%.0f s of %.0f)", state, time.monotonic() - began, limit)
    if failures:
        raise failures[0]


def _report_times(limit: float, name_limit: float) -> list[float]:
    """Seconds after which a wait is reported: 5, 15, then every 30, and at both limits."""
    return sorted(
        {*(s for s in (5, 15) if s < limit), *range(30, int(limit), 30), name_limit, limit}
    )


def _joining() -> tuple[str | None, int, int | None]:
    """Address of process 0, number of this process and number of all, as far as JAX knows them.

    JAX has no public way to ask before the processes have joined.
    """
    state = jax_distributed.global_state
    return state.coordinator_address, state.process_id, state.num_processes


def _is_unknown() -> bool:
    """Whether JAX waits for an address whose name this host does not know."""
    address = _joining()[0]
    return address is not None and not waiting.resolves(address)


def is_joined() -> bool:
    """Whether this process is one of several that have joined, or waits for the others."""
    count = jax_distributed.global_state.num_processes
    return jax.distributed.is_initialized() and count is not None and count > 1


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def launched_apart() -> str | None:
    """Returns a message if a launcher started several processes and they have not joined."""
    for launcher, variable in _TASK_COUNTS.items():
        tasks = os.environ.get(variable, "")
        if tasks.isdecimal() and int(tasks) > 1 and not jax.distributed.is_initialized():
            return f"{launcher} started {tasks} processes, but each of them runs alone"
    return None


class Preemption:
    """Hears SIGTERM and SIGHUP, and agrees with the other processes on the moment to stop.

    A notice to any one process counts for all. While this is open, these signals do not end the
    process. Before it is opened there is nothing to save, and they do. A SIGHUP that is ignored, as
    under nohup, stays ignored.

    Attributes:
      code: the exit code of a process that the signal had ended.
    """

    def __init__(self) -> None:
        self.code = 128 + signal.SIGTERM
        self._asked = False
        self._calls = 0
        self._previous: dict[int, Any] = {}

    def reached(self) -> bool:
        """Returns whether to stop now; every process must call this equally often."""
        self._calls += 1
        if jax.process_count() > 1:
            # JAX listens for SIGTERM itself, and agrees on the first call that none has passed.
            self._asked |= multihost_utils.reached_preemption_sync_point(self._calls)
        return self._asked

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            if jax.process_count() == 1:
                self._previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_signal)
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, *_: object) -> None:
        self.code = 128 + number
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX hears that one.
        else:
            self._asked = True
