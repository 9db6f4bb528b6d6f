"""Runs that nobody watches: asked to end while they save or evaluate, or without room."""

import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.programs.run_here import run_here
from tests.real_processes import ONE, TWO_BY_FOUR, Topology, finish, start_on, wait_for
from tests.tiny_run import FLAGS, results

pytestmark = pytest.mark.usefixtures("shared_programs")


def flags(workdir: Path, data_dir: Path) -> list[str]:
    directories = [f"--config.data.data_dir={data_dir}", f"--workdir={workdir}"]
    return [*FLAGS, "--config.total_steps=60", *directories]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def whole(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    run_here(flags(workdir, data_dir))
    return results(workdir)


@pytest.mark.parametrize("moment", ["save", "evaluation"])
@pytest.mark.parametrize(
    "topology", [ONE, pytest.param(TWO_BY_FOUR, marks=pytest.mark.slow)], ids=["one", "two"]
)
def test_sigterm_in_a_save_or_an_evaluation_loses_nothing(
    moment: str, topology: Topology, whole: Any, data_dir: Path, tmp_path: Path
) -> None:
    workdir, marker = tmp_path / "run", tmp_path / "held"
    program = [sys.executable, "-m", "tests.programs.held", moment, str(marker)]
    processes = start_on(topology, [*program, *flags(workdir, data_dir)])
    wait_for(processes[0], marker.exists)
    processes[-1].send_signal(signal.SIGTERM)
    for output in finish(processes, code=143):
        saved = output.partition("the state after step ")[2].split()[0]
        assert (workdir / "checkpoints" / saved).is_dir()
    assert not (workdir / "weights.npz").exists()
    # Nothing half-written is left.
    assert all(path.name.isdecimal() for path in (workdir / "checkpoints").iterdir())
    assert f"resuming after step {saved} of 60" in run_here(flags(workdir, data_dir))
    metrics, weights = results(workdir)
    if topology == ONE:
        assert (metrics, weights) == whole
    for line, expected in zip(metrics, whole[0], strict=True):
        assert line == {name: pytest.approx(x, abs=1e-4) for name, x in expected.items()}


@pytest.mark.slow
def test_a_save_that_fails_on_one_process_is_left_out_on_all(
    whole: Any, data_dir: Path, tmp_path: Path
) -> None:
    program = [sys.executable, "-m", "tests.programs.without_room"]
    command = [*program, *flags(tmp_path / "run", data_dir)]
    outputs = finish(start_on(TWO_BY_FOUR, [*command, "--config.checkpoint.on_failure=continue"]))
    assert "metrics.jsonl cannot be written" in outputs[0]
    assert "0.0 MiB are free" in outputs[1]
    for output in outputs:
        assert output.count("the run continues without it") == 2
    for line, expected in zip(results(tmp_path / "run")[0], whole[0], strict=True):
        assert line == {name: pytest.approx(x, abs=1e-4) for name, x in expected.items()}


@pytest.mark.slow
def test_a_save_that_fails_half_way_on_one_process_ends_all(data_dir: Path, tmp_path: Path) -> None:
    """Orbax would let the others wait for 20 minutes."""
    program = [sys.executable, "-m", "tests.programs.without_list"]
    command = [*program, *flags(tmp_path / "run", data_dir)]
    began = time.monotonic()
    processes = start_on(TWO_BY_FOUR, [*command, "--config.checkpoint.on_failure=continue"])
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    # Half a minute passes until a process counts as dead.
    assert time.monotonic() - began < 150
    assert [process.returncode == 0 for process in processes] == [False, False]
    message = r"error: the checkpoint of step \d+ could not be saved: .*No space left on device"
    assert re.search(rf"{message}.*; free space, then start again", outputs[0])
