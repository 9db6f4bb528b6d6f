"""Starting real processes, together where they are one run, and waiting for what they do."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

# Tests compile much and compute little. Several modules for each program, compiled side by side,
# take a fourth more of the processors.
COMPILE_FAST = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if version("jax").startswith("0.10."):
    # Without fusion emitters XLA compiles three times as fast. Later ones do not know the flag, and
    # an unknown flag ends the process.
    COMPILE_FAST += " --xla_cpu_use_fusion_emitters=false"

# What a command's flags follow.
VIT_JAX = [sys.executable, "-m", "vit_jax"]

# By (processes, simulated devices of each).
Topology = tuple[int, int]
ONE, EIGHT, TWO_BY_FOUR = (1, 1), (1, 8), (2, 4)

# Flags and environment of a process, from how many there are, its number and a free port.
Launch = Callable[[int, int, int], tuple[list[str], dict[str, str]]]


def by_flags(count: int, index: int, port: int) -> tuple[list[str], dict[str, str]]:
    """As a person starts processes by hand."""
    if count == 1:
        return [], {}
    join = [f"--coordinator_address=localhost:{port}", f"--num_processes={count}"]
    return [*join, f"--process_id={index}"], {}


def by_slurm(count: int, index: int, port: int) -> tuple[list[str], dict[str, str]]:
    """As `srun` starts tasks on one node; https://slurm.schedmd.com/srun.html."""
    return ["--distributed"], {
        "SLURM_JOB_ID": str(port),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
        # In the place of the one that follows from the job's number, which may be taken here.
        "JAX_COORDINATOR_PORT": str(port),
    }


def by_open_mpi(count: int, index: int, port: int) -> tuple[list[str], dict[str, str]]:
    """As `mpirun` of Open MPI 4 starts processes on one node."""
    return ["--distributed"], {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": str(count),
        "OMPI_COMM_WORLD_RANK": str(index),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(index),
        "JAX_COORDINATOR_PORT": str(port),
    }


def run_program(module: str, *arguments: str) -> str:
    """Runs a module of tests/programs to its end, and returns what it printed."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start_process(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Starts a command of `vit_jax`, with the devices and the precision of this process."""
    return subprocess.Popen(
        [*VIT_JAX, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_on(
    topology: Topology, command: Sequence[str], launch: Launch = by_flags
) -> list[subprocess.Popen[str]]:
    """Starts a command, once or as several processes that join; float32 is of full precision."""
    count, devices = topology
    xla = f"--xla_force_host_platform_device_count={devices} {COMPILE_FAST}"
    environment = os.environ | {"XLA_FLAGS": xla, "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = []
    for index in range(count):
        flags, variables = launch(count, index, port)
        processes.append(
            subprocess.Popen(
                [*command, *flags],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment | variables,
            )
        )
    return processes


def finish(processes: Sequence[subprocess.Popen[str]], code: int = 0) -> list[str]:
    """Waits for processes, which must end with `code`, and returns what they printed."""
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == code, output
    return outputs


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the process must not end before."""
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.001)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    """Returns when the process has printed a line that holds `text`."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"the run ended without a line of {text!r}")


def descendants(pid: int) -> list[int]:
    """Process numbers of the children, and of theirs."""
    listed = [path.read_text() for path in Path("/proc").glob(f"{pid}/task/*/children")]
    own = [int(child) for text in listed for child in text.split()]
    return own + [grandchild for child in own for grandchild in descendants(child)]
