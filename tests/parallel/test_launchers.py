"""Processes that learn from flags or from their launcher how many they are."""

import json
import sys
from pathlib import Path

import jax
import pytest

from tests.real_processes import Launch, by_flags, by_open_mpi, by_slurm, finish, start_on
from tests.tiny_run import COMMAND
from vit_jax.__main__ import main
from vit_jax.errors import UserError
from vit_jax.parallel.processes import join_processes

ADDRESS = "localhost:1234"


@pytest.mark.parametrize("launch", [by_slurm, by_open_mpi])
def test_launched_processes_train_together(launch: Launch, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    short = ["--config.total_steps=8", "--config.log_every=4", "--config.data.workers=0"]
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
        (["--distributed"], "--distributed: nothing here says which process this is"),
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
        (by_slurm, {"SLURM_NTASKS": "2(x2)"}, "nothing here says which process this is"),
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
        join_processes(None, None, None, True)


# Joins with flags, waiting one second for the others.
JOINER = """
import sys
from vit_jax.__main__ import main
from vit_jax.parallel import processes
processes._JOIN_SECONDS = 1
sys.exit(main(["evaluate", "--weights=none.npz", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("launch", [by_flags, by_slurm])
@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_waits_for_others_in_vain(launch: Launch, index: int) -> None:
    def only(count: int, _: int, port: int) -> tuple[list[str], dict[str, str]]:
        return launch(count + 1, index, port)

    (output,) = finish(start_on((1, 1), [sys.executable, "-c", JOINER], only), code=2)
    assert output.startswith("error: ") and output.count("\n") == 1
    assert "cannot join the" in output and "in 1 s; check that all of them" in output


def test_a_host_of_a_slice_must_join(monkeypatch: pytest.MonkeyPatch) -> None:
    join_processes(None, None, None)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match="one of 4 processes .* with --distributed"):
        join_processes(None, None, None)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    join_processes(None, None, None)


@pytest.mark.parametrize("variable", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_a_process_that_trains_alone_among_others_says_so(
    variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(variable, "1")
    join_processes(None, None, None)
    assert not caplog.messages
    monkeypatch.setenv(variable, "8")
    join_processes(None, None, None)
    (message,) = caplog.messages
    assert "has started 8 processes, each of which is alone: " in message
    assert message.endswith("add --distributed")


# Joins by hand, and tells what it takes for its GPUs.
BY_HAND = """
import jax, sys
from vit_jax.parallel.processes import join_processes
join_processes(sys.argv[1], 1, 0)
print(jax.process_count(), jax.config.values["jax_cuda_visible_devices"])
"""


@pytest.mark.parametrize("launcher", [by_slurm, by_open_mpi])
def test_by_hand_the_launcher_is_not_asked(launcher: Launch) -> None:
    def launch(count: int, index: int, port: int) -> tuple[list[str], dict[str, str]]:
        # On this host the launcher has started three before it, whose GPUs would be others.
        return [f"localhost:{port}"], launcher(4, 3, port)[1]

    (output,) = finish(start_on((1, 1), [sys.executable, "-c", BY_HAND], launch))
    assert output.split()[-2:] == ["1", "all"]
