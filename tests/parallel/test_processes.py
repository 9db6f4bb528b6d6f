"""One run on several topologies: one device, eight simulated ones, two processes of four."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jax
import pytest

from tests.eight_devices import EightDevices
from tests.programs.run_here import run_here
from tests.real_processes import (
    EIGHT,
    ONE,
    TWO_BY_FOUR,
    VIT_JAX,
    Topology,
    finish,
    start_on,
    wait_for_line,
)
from tests.tiny_run import FLAGS
from vit_jax.__main__ import main
from vit_jax.commands.processes import fail_together
from vit_jax.parallel import processes as joined

# In float32 at the highest precision, and without the clipping and warm-up that hide differences.
RUN = ["--config.total_steps=100", "--config.log_every=1", "--config.checkpoint.every_steps=40"]
# A run that does not end by itself; evaluations would be a program more to compile in each process.
ENDLESS = ["--config.total_steps=100000", "--config.evals=none"]


def command(workdir: Path, data_dir: Path, *more: str) -> list[str]:
    directories = [f"--config.data.data_dir={data_dir}", f"--workdir={workdir}"]
    return [*FLAGS, *RUN, *directories, *more]


def start(
    topology: Topology, workdir: Path, data_dir: Path, *more: str
) -> list[subprocess.Popen[str]]:
    """Starts a run's processes, or goes on with it."""
    return start_on(topology, [*VIT_JAX, *command(workdir, data_dir, *more)])


def run(topology: Topology, workdir: Path, data_dir: Path, eight_devices: EightDevices) -> str:
    """Takes a run to its end; returns what process 0 prints."""
    if topology == ONE:
        return run_here(command(workdir, data_dir))
    if topology == EIGHT:
        return eight_devices.run(run_here, command(workdir, data_dir))
    return finish(start(topology, workdir, data_dir))[0]


def losses(workdir: Path) -> list[float]:
    """Losses of every step, and of the evaluations after some of them."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    names = ("train/loss", "test/loss")
    return [line[name] for line in lines for name in names if name in line]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    describe = ["describe", "--config=configs/quickstart.py"]
    assert main([*describe, f"--config.data.data_dir={directory}"]) == 0
    return directory


@pytest.fixture(scope="module")
def on_one(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on one device; it keeps its checkpoints of steps 80 and 100."""
    workdir = tmp_path_factory.mktemp("runs") / "one"
    run_here(command(workdir, data_dir))
    return workdir


def go_on_after_80(
    source: Path, topology: Topology, workdir: Path, data_dir: Path, eight_devices: EightDevices
) -> None:
    """Ends a run in `workdir` that another topology began, from a checkpoint of its own."""
    shutil.copytree(source, workdir)
    shutil.rmtree(workdir / "checkpoints/100")
    (workdir / "weights.npz").unlink()
    printed = run(topology, workdir, data_dir, eight_devices)
    assert "resuming after step 80 of 100" in printed


@pytest.mark.slow
@pytest.mark.parametrize("topology", [EIGHT, TWO_BY_FOUR], ids=["8", "2x4"])
def test_losses_and_checkpoints_do_not_depend_on_the_topology(
    topology: Topology, on_one: Path, data_dir: Path, tmp_path: Path, eight_devices: EightDevices
) -> None:
    expected = losses(on_one)
    assert len(expected) == 100 + 4
    run(topology, tmp_path / "run", data_dir, eight_devices)
    assert losses(tmp_path / "run") == pytest.approx(expected, abs=1e-5)
    for other in {ONE, EIGHT, TWO_BY_FOUR} - {topology}:
        workdir = tmp_path / f"on_{other[0]}x{other[1]}"
        go_on_after_80(tmp_path / "run", other, workdir, data_dir, eight_devices)
        assert losses(workdir) == pytest.approx(expected, abs=1e-5)


# Two processes do so below, where they fall back to an earlier checkpoint.
def test_eight_devices_go_on_where_one_has_stopped(
    on_one: Path, data_dir: Path, tmp_path: Path, eight_devices: EightDevices
) -> None:
    go_on_after_80(on_one, EIGHT, tmp_path / "run", data_dir, eight_devices)
    assert losses(tmp_path / "run") == pytest.approx(losses(on_one), abs=1e-5)


def test_a_notice_to_one_process_stops_all_after_the_same_step(
    on_one: Path, data_dir: Path, tmp_path: Path
) -> None:
    processes = start(TWO_BY_FOUR, tmp_path, data_dir)
    wait_for_line(processes[0], "step 10/")
    began = time.monotonic()
    processes[1].send_signal(signal.SIGTERM)
    outputs = finish(processes, code=143)
    assert time.monotonic() - began < 30
    saved = [output.partition("the state after step ")[2].split()[0] for output in outputs]
    assert saved[0] == saved[1]
    assert (tmp_path / "checkpoints" / saved[0]).is_dir()

    outputs = finish(start(TWO_BY_FOUR, tmp_path, data_dir))
    assert f"resuming after step {saved[0]}" in outputs[0]
    assert losses(tmp_path) == pytest.approx(losses(on_one), abs=1e-5)


@pytest.mark.slow
def test_all_processes_fall_back_to_the_same_checkpoint(
    on_one: Path, data_dir: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(on_one, workdir)
    (workdir / "weights.npz").unlink()  # With its weights, the run has ended.
    for file in (workdir / "checkpoints/100/state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    outputs = finish(start(TWO_BY_FOUR, workdir, data_dir))
    for output in outputs:
        assert "the checkpoint of step 100 is broken" in output, output
    assert "resuming after step 80" in outputs[0]
    assert (workdir / "unreadable/100").is_dir()
    assert losses(workdir) == pytest.approx(losses(on_one), abs=1e-5)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_the_death_of_one_process_ends_the_others(
    victim: int, data_dir: Path, tmp_path: Path
) -> None:
    processes = start(TWO_BY_FOUR, tmp_path, data_dir, *ENDLESS)
    wait_for_line(processes[0], "step 10/")
    processes[victim].kill()
    other = processes[1 - victim]
    output, _ = other.communicate(timeout=60)
    assert other.returncode not in (0, 2)
    # Ours when a collective breaks; JAX's when its coordinator, process 0, is heard no more.
    assert "another process has ended" in output or "another task died" in output, output[-2000:]


@pytest.mark.slow
def test_ctrl_c_is_one_line_as_on_one_process(data_dir: Path, tmp_path: Path) -> None:
    processes = start(TWO_BY_FOUR, tmp_path, data_dir, *ENDLESS)
    wait_for_line(processes[0], "step 10/")
    processes[1].send_signal(signal.SIGINT)
    (output,) = finish(processes[1:], code=130)
    assert "interrupted; no step is saved yet, so the same command starts anew" in output
    assert "Traceback" not in output
    assert processes[0].communicate(timeout=60)[0] and processes[0].returncode not in (0, 2)


class Left(Exception):
    """In the place of the end of the process."""


@pytest.mark.parametrize(
    ("message", "is_told"),
    [
        ("INTERNAL: Gloo all-reduce failed: Connection closed by peer", True),
        ("INTERNAL: NCCL operation ncclAllReduce failed: unhandled system error", True),
        ("UNAVAILABLE: the coordination service is not reachable", True),
        ("DEADLINE_EXCEEDED: Barrier timed out", True),
        ("INTERNAL: Failed to execute a kernel: an illegal memory access", False),
        ("INVALID_ARGUMENT: Argument does not match host shape", False),
    ],
)
def test_an_error_of_this_process_is_not_taken_for_the_end_of_another(
    message: str,
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(joined, "is_joined", lambda: True)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Left, match="^1$"), fail_together():
        raise jax.errors.JaxRuntimeError(message)
    error = capsys.readouterr().err
    assert message in error
    assert ("another process has ended" in error) == is_told
    assert ("Traceback" in error) != is_told


def test_a_mistake_on_one_process_ends_all(data_dir: Path, tmp_path: Path) -> None:
    processes = start(TWO_BY_FOUR, tmp_path / "run", data_dir, "--config.data.train=trian")
    outputs = finish(processes, code=2)
    assert "trian" in outputs[0]


@pytest.mark.slow
def test_all_processes_know_the_best_step(data_dir: Path, tmp_path: Path) -> None:
    # With so high a rate and so few examples, the loss soon gets worse.
    options = [
        *("--config.data.subset=100", "--config.optimizer.lr=0.02"),
        *("--config.evals.test.every_steps=4", "--config.early_stop.eval=test"),
        *("--config.early_stop.metric=loss", "--config.early_stop.patience=3"),
        "--config.checkpoint.every_steps=1000",
    ]

    def run() -> tuple[list[float], dict[str, float]]:
        for output in finish(start(TWO_BY_FOUR, tmp_path, data_dir, *options)):
            assert "cannot be used" not in output
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
        return losses(tmp_path), lines[-1]

    first = run()
    last, best = first[1]["step"], first[1]["best/step"]
    assert last == best + 3 * 4 < 100
    assert first[1]["best/test/loss"] == min(first[0][4::5])
    # What was evaluated before the step that it falls back to, process 0 tells the other.
    shutil.rmtree(tmp_path / f"checkpoints/{last}")
    (tmp_path / "weights.npz").unlink()
    assert run() == first
    assert (tmp_path / "weights.npz").exists()
