"""Processes that learn from flags or from their launcher how many they are."""

import ipaddress
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import jax
import pytest

from tests.real_processes import Launch, by_flags, by_open_mpi, by_slurm, finish, start_on
from tests.tiny_run import COMMAND
from vit_jax.__main__ import main
from vit_jax.errors import UserError
from vit_jax.parallel import processes, waiting
from vit_jax.parallel.processes import _bind_address, join_processes

ADDRESS = "localhost:1234"

# By what each of them tries.
Processes = dict[str, subprocess.Popen[str]]


@pytest.mark.parametrize("launch", [by_slurm, pytest.param(by_open_mpi, marks=pytest.mark.slow)])
def test_launched_processes_train_together(launch: Launch, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    short = [
        *("--config.total_steps=8", "--config.log_every=4", "--config.evals=none"),
        # Each process compiles for itself.
        *("--config.optimizer.micro_batches=1", "--config.optimizer.average=none"),
        "--config.model.dropout=0.0",
    ]
    directories = [f"--config.data.data_dir={tmp_path / 'data'}", f"--workdir={workdir}"]
    outputs = finish(start_on((2, 1), [*COMMAND, *short, *directories], launch))
    assert "step 8/8" in outputs[0]
    assert "step 8/8" not in outputs[1]
    versions = json.loads((workdir / "versions.json").read_text())
    assert versions["processes"] == 2
    assert len(versions["devices"]) == 2
    assert (workdir / "weights.npz").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes=2"], "go together: give all three"),
        (
            [f"--coordinator_address={ADDRESS}", "--num_processes=2", "--process_id=2"],
            "--process_id=2 must be from 0 to 1, for --num_processes=2",
        ),
        (
            [f"--coordinator_address={ADDRESS}", "--num_processes=2", "--process_id=-1"],
            "--process_id=-1 must be from 0 to 1",
        ),
        (
            [f"--coordinator_address={ADDRESS}", "--num_processes=0", "--process_id=0"],
            "--num_processes=0 must be at least 1",
        ),
        (["--distributed", "--process_id=0"], "leave out --coordinator_address"),
        (["--distributed"], "--distributed: no launcher found"),
    ],
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_flags_that_do_not_fit(
    command: str,
    flags: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As in a new process; this one's tests have used JAX.
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    own = ["--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}"]
    given = own if command == "train" else [f"--weights={tmp_path}"]
    assert main([command, *given, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("launch", "broken", "message"),
    [
        (by_slurm, {"SLURM_NTASKS": "2(x2)"}, "no launcher found"),
        (by_open_mpi, {"OMPI_COMM_WORLD_SIZE": None}, "OMPI_COMM_WORLD_SIZE"),
        (by_open_mpi, {"OMPI_MCA_orte_hnp_uri": "1.0;usock"}, "Could not parse coordinator IP"),
    ],
)
def test_a_launcher_that_says_nonsense(
    launch: Launch,
    broken: dict[str, str | None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    for name, value in (launch(2, 1, 1234)[1] | broken).items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="--distributed: .*" + message):
        join_processes(distributed=True)


JOIN = [sys.executable, "-m", "tests.programs.join"]


def only(index: int, launch: Launch, **changed: str) -> Launch:
    """Starts one of two processes: the other one never comes."""

    def start(count: int, _: int, port: int) -> tuple[list[str], dict[str, str]]:
        flags, variables = launch(count + 1, index, port)
        return flags, variables | changed

    return start


def start_side_by_side(launches: Mapping[str, Launch], limit: int) -> Iterator[Processes]:
    """Starts a process by each launch. They wait for seconds, and so they all wait at once."""
    join = [*JOIN, f"--limit={limit}"]
    processes = {name: start_on((1, 1), join, launch)[0] for name, launch in launches.items()}
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


WAITS_OF_PROCESS_0 = r"process 0 waits at localhost:\d+ for 1 of 2 processes"
WAITS_OF_PROCESS_1 = r"process 1 waits for process 0 at localhost:\d+, which does not answer \(.+\)"
IN_VAIN = {
    "0 by flags": (only(0, by_flags), WAITS_OF_PROCESS_0),
    "1 by flags": (only(1, by_flags), WAITS_OF_PROCESS_1),
    "0 by Slurm": (only(0, by_slurm), WAITS_OF_PROCESS_0),
    "1 by Slurm": (only(1, by_slurm), WAITS_OF_PROCESS_1),
}
UNRESOLVED = only(1, by_slurm, SLURM_STEP_NODELIST="node[001-003].invalid")


@pytest.fixture(scope="module")
def in_vain() -> Iterator[Processes]:
    launches = {name: launch for name, (launch, _) in IN_VAIN.items()}
    yield from start_side_by_side(launches | {"unresolved": UNRESOLVED}, limit=6)


@pytest.mark.parametrize("name", IN_VAIN)
def test_a_process_that_waits_in_vain_says_for_whom_and_where(
    name: str, in_vain: Processes
) -> None:
    (output,) = finish([in_vain[name]], code=2)
    report, error, *rest = output.splitlines()
    wait = IN_VAIN[name][1]
    assert re.fullmatch(wait + r" \(5 s of 6\)", report)
    assert re.match(rf"error: .*gave up after 6 s: {wait}; check that all of them", error)
    # JAX may add lines of its own when its service ends.
    assert not any("Traceback" in line or line.startswith("error: ") for line in rest)


def test_a_host_name_that_does_not_resolve_is_named(in_vain: Processes) -> None:
    (output,) = finish([in_vain["unresolved"]], code=2)
    assert re.search(r"process 1 waits for process 0 at node001:\d+, a name that does not", output)
    assert "enter it in the DNS or in /etc/hosts, or give the IP address" in output
    assert "JAX_COORDINATOR_ADDRESS=" in output


@pytest.mark.parametrize("process", [0, 1])
def test_the_wait_for_an_unknown_name_is_shorter(
    process: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a node whose name is in no DNS, where JAX would try again for minutes."""
    ended = threading.Event()
    joining = ("node001.invalid:1234", process, 2)
    monkeypatch.setattr(processes, "_joining", lambda: joining)
    monkeypatch.setattr(processes, "NAME_SECONDS", 0.2)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: ended.wait(30))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    join = ("node001.invalid:1234", 2, process)
    with pytest.raises(UserError) as error:
        join_processes(*join)
    whom = ("process 0 waits", "process 1 waits for process 0")[process]
    assert f"gave up after 0 s: {whom} at node001.invalid:1234, a name that" in str(error.value)
    assert str(error.value).endswith("the IP address of that host in --coordinator_address")
    # There a pod has no name before it is scheduled, so the whole wait applies.
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(UserError, match="gave up after 1 s"):
        join_processes(*join, limit=0.6)
    ended.set()


def test_processes_that_are_told_different_numbers_do_not_train() -> None:
    """JAX takes the number of process 0 alone: without a check, the third is never missed."""

    def launch(_: int, index: int, port: int) -> tuple[list[str], dict[str, str]]:
        return by_flags(2 + index, index, port)

    outputs = finish(start_on((2, 1), JOIN, launch), code=2)
    for output in outputs:
        assert re.search(
            r"error: process 1 has another number of processes than process 0 "
            r"\(num_processes: .*\); check that all of them are started with the same",
            output,
        )


def test_process_0_names_the_hosts_that_have_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From tables as Linux writes them: words of addresses in the byte order of the host."""
    port = "04D2"  # 1234
    rows = [
        f"0100007F:{port} 00000000:0000 0A",  # It listens.
        f"0100007F:{port} 0100007F:9C40 01",  # Its own connection, from both ends.
        f"0100007F:9C40 0100007F:{port} 01",
        f"0100000A:{port} 0200000A:9C41 01",  # 10.0.0.2
        f"0100000A:{port} 0200000A:9C42 01",
        f"0100000A:{port} 0200000A:9C43 06",  # It has been closed.
        "0100000A:0016 0900000A:9C44 01",  # A connection to another port.
    ]
    # ::ffff:10.0.0.3, as a socket of both protocols shows it.
    rows6 = [f"0000000000000000FFFF00000100000A:{port} 0000000000000000FFFF00000300000A:9C45 01"]
    for name, table in (("tcp", rows), ("tcp6", rows6)):
        lines = ["  sl  local_address rem_address   st", *(f"   0: {row} 0:0" for row in table)]
        (tmp_path / name).write_text("\n".join(lines))
    monkeypatch.setattr(waiting, "_TABLES", (tmp_path / "tcp", tmp_path / "tcp6"))
    assert waiting.describe("10.0.0.1:1234", 0, 8) == (
        "process 0 waits at 10.0.0.1:1234 for 4 of 8 processes "
        "(come so far: 2 from 10.0.0.2, 1 from 10.0.0.3)"
    )


def test_process_0_counts_those_that_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        address = f"localhost:{port}"
        assert waiting.describe(address, 0, 4).endswith(f"at {address} for 3 of 4 processes")
        with ExitStack() as stack:
            for _ in range(2):  # its own connection, and that of another process
                stack.enter_context(socket.create_connection(("localhost", port)))
            assert waiting.describe(address, 0, 4).endswith(" for 2 of 4 processes")
        assert "which is up, but other" in waiting.describe(address, 1, 4)
    monkeypatch.setattr(waiting, "_TABLES", (Path("/nonexistent"),))
    assert waiting.describe(address, 0, 4).endswith(" for 3 of 4 processes")
    assert "launcher" in waiting.describe(None, 0, None)


def test_a_host_of_a_slice_must_join(monkeypatch: pytest.MonkeyPatch) -> None:
    join_processes()
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match="one of 4 processes .* with --distributed"):
        join_processes()
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    join_processes()


@pytest.mark.parametrize("variable", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_a_process_that_trains_alone_among_others_says_so(
    variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(variable, "1")
    join_processes()
    assert not caplog.messages
    monkeypatch.setenv(variable, "8")
    join_processes()
    (message,) = caplog.messages
    assert "started 8 processes, but each of them runs alone: " in message
    assert message.endswith("add --distributed")


@pytest.mark.parametrize("launcher", [by_slurm, by_open_mpi])
def test_by_hand_the_launcher_is_not_asked(launcher: Launch) -> None:
    def launch(count: int, index: int, port: int) -> tuple[list[str], dict[str, str]]:
        # On this host the launcher has started three before it, whose GPUs would be others.
        flags = [f"--coordinator_address=localhost:{port}", "--num_processes=1", "--process_id=0"]
        return flags, launcher(4, 3, port)[1]

    (output,) = finish(start_on((1, 1), JOIN, launch))
    assert output.split()[-2:] == ["1", "all"]


def listening(port: int) -> set[str]:
    """The addresses at which a port of this machine is open."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, number = local.rpartition(":")
            if state == "0A" and int(number, 16) == port:
                words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
                found.add(str(ipaddress.ip_address(b"".join(words))))
    return found


ON_ONE_MACHINE = {
    "by flags": only(0, by_flags),
    # All tasks on one node, whose name need not even resolve.
    "by Slurm": only(0, by_slurm, SLURM_STEP_NUM_NODES="1", SLURM_STEP_NODELIST="node001.invalid"),
    "by Open MPI": only(0, by_open_mpi, OMPI_COMM_WORLD_LOCAL_SIZE="2"),
}


@pytest.fixture(scope="module")
def on_one_machine() -> Iterator[Processes]:
    yield from start_side_by_side(ON_ONE_MACHINE, limit=60)


@pytest.mark.parametrize("name", ON_ONE_MACHINE)
def test_processes_of_one_machine_meet_on_its_loopback(
    name: str, on_one_machine: Processes
) -> None:
    process = on_one_machine[name]
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"process 0 waits at localhost:(\d+)", line)
    assert match is not None, line
    found = listening(int(match[1]))
    assert found and found <= {"127.0.0.1", "::1", "::ffff:7f00:1"}


def test_what_others_reach_is_not_bound_to_the_loopback() -> None:
    assert _bind_address("10.1.2.3:1234") is None
    assert _bind_address("nowhere.invalid:1234") is None
    assert _bind_address("[::1]:1234") == "[::1]:1234"
    assert _bind_address("127.0.0.5:1234") == "127.0.0.5:1234"
