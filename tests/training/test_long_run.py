"""What a run of many steps reports of itself, and what it takes."""

import json
import re
import time
from pathlib import Path
from typing import Any, Never

import jax
import pytest

from tests.real_processes import descendants, wait_for_line
from tests.tiny_run import FLAGS, start
from vit_jax.__main__ import main
from vit_jax.data.sources.tfds import TfdsSource
from vit_jax.evaluation.classification import Classification
from vit_jax.runs import file_list
from vit_jax.runs.checkpoints import Checkpoints
from vit_jax.training.clock import Clock
from vit_jax.training.reporter import Reporter
from vit_jax.training.run import Run

pytestmark = pytest.mark.usefixtures("shared_programs")


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.slow
def test_memory_of_host_and_workers_does_not_grow_over_2000_steps(tmp_path: Path) -> None:
    # The run is longer than the test looks at it: a process that ends has no memory to measure.
    process = start(
        tmp_path / "run",
        tmp_path / "data",
        *("--config.total_steps=9600", "--config.data.workers=1", "--config.log_every=100"),
        *("--config.checkpoint.every_steps=1000", "--config.evals.test.every_steps=1000"),
        # Nothing of these stays on the host, and each step takes a third longer with them.
        *("--config.optimizer.micro_batches=1", "--config.optimizer.average=none"),
        "--config.model.dropout=0.0",
    )

    def resident(at: str) -> list[float]:
        wait_for_line(process, at)
        return [resident_mib(pid) for pid in (process.pid, *descendants(process.pid))]

    try:
        early, late = resident("step 400/"), resident("step 2400/")
    finally:
        process.kill()
        process.communicate()
    # The evaluation's worker comes later; the first ones are the same processes.
    for before, after in zip(early, late, strict=False):
        assert after < before + 48, f"MiB: {early}, then {late}"


def test_the_share_of_time_waiting_for_data_is_that_of_a_slow_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = TfdsSource._record

    def slowed(self: Any, *given: Any) -> Any:
        time.sleep(0.04)
        return parse(self, *given)

    monkeypatch.setattr(TfdsSource, "_record", slowed)
    directories = [f"--config.data.data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
    steps = ["--config.total_steps=30", "--config.log_every=10"]
    assert main([*FLAGS, *steps, *directories]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    waits = [line["time/data_wait"] for line in lines if "time/data_wait" in line]
    # Records of 40 ms by few threads, against a step of a few; the first ones were read while it
    # was compiled.
    assert all(0.8 <= wait <= 1 for wait in waits[1:]), waits


def test_the_first_step_has_a_loss_but_no_speed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directories = [f"--config.data.data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
    steps = ["--config.total_steps=4", "--config.log_every=1"]
    assert main([*FLAGS, *steps, *directories]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3, 4]
    assert ["time/images_per_second" in line for line in trained] == [False, True, True, True]
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first.startswith("step 1/4: loss ") and "img/s" not in first
    assert second.startswith("step 2/4: loss ") and " left" in second


def test_what_checkpoints_and_evaluations_take_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slowed(owner: Any, name: str, seconds: float) -> None:
        call = getattr(owner, name)

        def slow(*given: Any, **options: Any) -> Any:
            time.sleep(seconds)
            return call(*given, **options)

        monkeypatch.setattr(owner, name, slow)

    slowed(Checkpoints, "save", 0.2)  # While the loop waits.
    slowed(file_list, "write", 0.3)  # Behind it.
    slowed(Classification, "scores", 0.4)
    slowed(Run, "take", 0.05)
    flags = ["--config.total_steps=20", "--config.log_every=1"]
    every = ["--config.checkpoint.every_steps=8", "--config.evals.test.every_steps=6"]
    directories = [f"--config.data.data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
    assert main([*FLAGS, *flags, *every, *directories]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]

    def logged(name: str) -> dict[int, float]:
        return {line["step"]: line[name] for line in lines if name in line}

    waits, writes = logged("time/checkpoint_wait"), logged("time/checkpoint_write")
    # In the next line; after the last step no line follows.
    assert list(waits) == [9, 17] and min(waits.values()) > 0.2
    # That of step 16 may still be written when the last line comes.
    assert len(writes) in (1, 2) and min(writes.values()) > 0.3
    evaluations = logged("time/evaluation/test")
    assert list(evaluations) == list(logged("test/top1")) == [6, 12, 18, 20]
    assert min(evaluations.values()) > 0.4
    # What they take is not the steps' time: with it, 32 images would take 0.4 seconds more.
    speeds = logged("time/images_per_second")
    assert min(speeds[step] for step in (7, 9, 13, 17, 19)) > 32 / 0.4
    printed = capsys.readouterr().out.splitlines()
    assert sum(" s for saving" in line for line in printed) == 2
    assert sum("a checkpoint written in " in line for line in printed) == len(writes)
    assert (
        sum(re.search(r"^step \d+: test top-1 .* in \d+\.\d s$", x) is not None for x in printed)
        == 4
    )


def test_a_step_that_is_computed_where_it_is_dispatched_is_logged_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its time counts for the next step, and a save in between for neither."""
    log_step, written = Reporter.log_step, []

    def when_ready(self: Any, step: int, scalars: Any, *, waited: float) -> None:
        log_step(self, step, jax.block_until_ready(scalars), waited=waited)
        lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
        written.append((step, [json.loads(line)["step"] for line in lines]))

    monkeypatch.setattr(Reporter, "log_step", when_ready)
    directories = [f"--config.data.data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
    steps = ["--config.total_steps=4", "--config.log_every=1", "--config.evals=none"]
    assert main([*FLAGS, *steps, *directories]) == 0
    assert written == [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 3, 4])]


def test_a_step_that_fails_where_it_is_waited_for_tells_what_takes_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def settle(self: Any) -> Never:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory on 9 bytes.\nMore.")

    monkeypatch.setattr(Reporter, "settle", settle)
    directories = [f"--config.data.data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
    assert main([*FLAGS, "--config.total_steps=4", *directories]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: the run needs more memory than a device has (Out of memory on ")
    assert "config.model.remat" in error


def test_speeds_are_those_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = Clock(batch_size=32)
    # The first step took a minute to compile, and another to be logged and saved.
    clock.pause(7.0)
    now = 160.0
    clock.tick(waited=50.0)
    assert clock.report(waited=50.0, steps_left=30) == {}
    clock.pause(60.0)
    now = 220.0
    for _ in range(10):
        clock.tick(waited=50.5)
    clock.pause(3.0)
    now = 228.0
    # Ten steps of 32 images in five seconds, one of which was spent waiting.
    assert clock.report(waited=51.0, steps_left=20) == {
        "time/images_per_second": 64,
        "time/data_wait": 0.2,
        "time/seconds_left": 10,
    }
    clock.tick(waited=52.0)
    now = 230.0
    assert clock.report(waited=52.5, steps_left=0)["time/data_wait"] == 0.75

    clock = Clock(batch_size=32, images_at_peak=256)
    clock.tick(waited=0.0)
    clock.tick(waited=0.0)
    now = 230.5
    assert clock.report(waited=0.0, steps_left=0)["time/mfu"] == 0.25
