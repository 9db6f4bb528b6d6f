"""Runs that are killed or asked to end, as real processes, and what is left of them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.real_processes import descendants, wait_for, wait_for_line
from tests.tiny_run import COMMAND, FLAGS, results, start
from vit_jax.__main__ import main

pytestmark = pytest.mark.usefixtures("shared_programs")

STEPS = "--config.total_steps=60"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def whole(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The results of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    to_the_end(workdir, data_dir)
    return results(workdir)


def to_the_end(workdir: Path, data_dir: Path) -> None:
    """Takes the run to its end in this process."""
    directories = [f"--config.data.data_dir={data_dir}", f"--workdir={workdir}"]
    assert main([*FLAGS, *directories, STEPS]) == 0


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_bit_for_bit(
    whole: Any, data_dir: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    checkpoints = workdir / "checkpoints"

    def is_saving() -> bool:
        return any("tmp" in path.name for path in checkpoints.glob("*"))

    def has_claimed(since: float) -> Callable[[], bool]:
        versions = workdir / "versions.json"
        return lambda: versions.exists() and versions.stat().st_mtime > since

    moments = {
        "the first compile": lambda p: wait_for(p, (workdir / "config.json").exists),
        "a save": lambda p: wait_for(p, is_saving),
        "a step": lambda p: wait_for_line(p, "step 21/60"),
        "an evaluation": lambda p: wait_for_line(p, "step 28/60"),
        "a restore": lambda p: wait_for(p, has_claimed(time.time())),
        "the end": lambda p: wait_for_line(p, "step 60: test"),
    }
    for moment, wait in moments.items():
        process = start(workdir, data_dir, STEPS)
        wait(process)
        process.kill()
        process.communicate()
        assert not (workdir / "weights.npz").exists(), moment
    to_the_end(workdir, data_dir)
    assert results(workdir) == whole


def test_sigterm_saves_and_the_next_start_goes_on(
    whole: Any, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    process = start(workdir, data_dir, STEPS)
    wait_for_line(process, "step 14/60")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "the same command resumes" in output
    to_the_end(workdir, data_dir)
    assert "resuming after step" in capsys.readouterr().out
    assert results(workdir) == whole


@pytest.mark.slow
def test_sigterm_to_the_whole_group_lets_the_workers_live_until_it_is_saved(
    data_dir: Path, tmp_path: Path
) -> None:
    options = [f"--config.data.data_dir={data_dir}", f"--workdir={tmp_path}"]
    process = subprocess.Popen(
        [*COMMAND, *options, "--config.total_steps=100000", "--config.data.workers=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for_line(process, "step 14/")
        workers = descendants(process.pid)
        # To the workers first, so that what they had read is used up before the run hears of it.
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        wait_for_line(process, "step 210/")
        os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 143, output
        saved = output.partition("the state after step ")[2].split()[0]
        assert (tmp_path / "checkpoints" / saved).is_dir()
    finally:
        process.kill()  # In a session of its own, Ctrl-C of the tests would not reach it.
    until = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_second_run_in_the_same_directory_is_refused(data_dir: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    first = start(workdir, data_dir, STEPS)
    wait_for(first, (workdir / "versions.json").exists)
    second = start(workdir, data_dir, STEPS)
    output, _ = second.communicate(timeout=120)
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert "is in use by another run" in output.splitlines()[-1]


def test_a_killed_run_leaves_no_process_and_no_shared_memory(
    data_dir: Path, tmp_path: Path
) -> None:
    before = set(Path("/dev/shm").iterdir())
    process = start(tmp_path / "run", data_dir, STEPS, "--config.data.workers=2")
    wait_for_line(process, "step 28/60")  # After the first evaluation, which has its own workers.
    left = descendants(process.pid)
    assert len(left) >= 4
    process.kill()
    process.communicate()
    until = time.monotonic() + 15
    while time.monotonic() < until:
        left = [pid for pid in left if Path(f"/proc/{pid}").exists()]
        if not left and set(Path("/dev/shm").iterdir()) <= before:
            return
        time.sleep(0.2)
    raise AssertionError(f"left: {left}, {set(Path('/dev/shm').iterdir()) - before}")
