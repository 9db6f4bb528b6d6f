"""`sweep` as a user types it: real runs on the digits, killed, failed and resumed."""

import json
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.real_processes import descendants, start_process, wait_for, wait_for_line
from vit_jax.__main__ import main
from vit_jax.runs.directory import newest_checkpoint

TINY = [
    *("sweep", "--config=configs/quickstart.py", "--held_out=10%", "--seeds=0,1"),
    *("--config.model.depth=1", "--config.model.width=16", "--config.model.mlp_dim=16"),
    *("--config.model.num_heads=2", "--config.data.batch_size=32", "--config.log_every=5"),
    *("--config.optimizer.warmup_steps=2", "--config.checkpoint.every_steps=10"),
    *("--config.evals.test.every_steps=none", "--config.total_steps=40"),
]
RATES = "--grid.optimizer.lr=0.001,0.01"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def words(data_dir: Path, workdir: Path, *more: str) -> list[str]:
    return [*TINY, f"--config.data.data_dir={data_dir}", f"--workdir={workdir}", *more]


def table(workdir: Path) -> Any:
    """The results without times, which no two sweeps share."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            hours = ("device_hours", "core_days")
            return {key: timeless(each) for key, each in value.items() if key not in hours}
        return [timeless(each) for each in value] if isinstance(value, list) else value

    return timeless(json.loads((workdir / "results.json").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_sweep_killed_at_random_gives_the_same_table(
    seed: int, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(data_dir, tmp_path / "alone", RATES)) == 0
    alone = capsys.readouterr().out
    rng, kills, done = random.Random(seed), 0, ""
    while True:
        process = start_process(words(data_dir, tmp_path / "killed", RATES))
        try:
            done, _ = process.communicate(timeout=rng.uniform(2, 12) if kills < 6 else 300)
        except subprocess.TimeoutExpired:
            family = descendants(process.pid)
            process.send_signal(signal.SIGTERM if kills == 3 else signal.SIGKILL)
            output, _ = process.communicate()
            assert process.returncode in (-signal.SIGKILL, -signal.SIGTERM, 143), output
            kills += 1
            _wait_until_gone(family)
            continue
        break
    assert process.returncode == 0, done
    assert kills >= 3
    assert table(tmp_path / "killed") == table(tmp_path / "alone")
    # What is printed, without the four columns of costs and the line of their sum.
    shown = [
        [re.sub(r"(\|[^|]*){4}\|$", "", line) for line in text.splitlines() if "Cost" not in line]
        for text in (alone.partition("\nGrid")[2], done.partition("\nGrid")[2])
    ]
    assert shown[0][:-1] == shown[1][:-1]
    assert any(line.startswith("Chosen: optimizer.lr=") for line in shown[1])


def _wait_until_gone(family: Sequence[int]) -> None:
    until = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() for pid in family):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_killed_sweep_takes_its_run_with_it_and_the_run_resumes(
    data_dir: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "sweep"
    flags = words(data_dir, workdir, RATES, "--index=1", "--config.total_steps=1000000")
    log = workdir / "grid/1-lr=0.01/log.txt"
    with _started(flags) as process:
        wait_for_line(process, "grid/1-lr=0.01: starts; its log is")
        wait_for(process, lambda: newest_checkpoint(log.parent) is not None)
        family = descendants(process.pid)
        assert family
    _wait_until_gone(family)
    log.write_bytes(b"")
    with _started(flags) as process:
        wait_for(process, lambda: all(s in log.read_text() for s in ("resuming after", " img/s")))
        process.send_signal(signal.SIGTERM)  # The run under way saves its state first.
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 143
    assert "the same command resumes" in output
    assert "asked to end: the state after step" in log.read_text()


@contextmanager
def _started(flags: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed in the end, however that comes."""
    process = start_process(flags)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_run_that_fails_is_named_with_its_log_and_what_to_type(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = words(data_dir, tmp_path / "sweep", RATES, "--config.init_from=missing.npz")
    assert main(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    run = tmp_path / "sweep/grid/0-lr=0.001"
    assert line.startswith("error: run grid/0-lr=0.001 failed (exit code 2): error: ")
    assert "missing.npz" in line.partition("its log is")[0]
    assert f"its log is {run}/log.txt; the same command tries it again" in line
    assert "python -m vit_jax train --config=configs/quickstart.py" in line
    assert f"--workdir={run}" in line


@pytest.mark.slow
def test_a_rate_that_diverges_is_not_chosen_and_not_tried_again(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = words(data_dir, tmp_path, "--grid.optimizer.lr=1e30,0.01", "--seeds=0")
    flags.append("--config.optimizer.clip_norm=none")
    assert main(flags) == 0
    output = capsys.readouterr().out
    assert "grid/0-lr=1e30: diverged (step" in output
    assert "Chosen: optimizer.lr=0.01" in output
    assert main(flags) == 0
    assert "grid/0-lr=1e30: had ended" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--grid.optimizer.lr="], "--grid.optimizer.lr has no values, so the grid is empty"),
        (["--grid.optimizer.lr"], "write --grid.SECTION.KEY=VALUE,VALUE"),
        (["--grid.optimizer.lrr=1,2"], "config.optimizer.lrr: no such key; did you mean 'lr'?"),
        ([RATES, RATES], "--grid.optimizer.lr is there twice"),
        ([RATES, "--index=9"], "--index=9: the runs of this sweep are 0 to 3"),
        ([RATES, "--held_out=a tenth"], "must be whole percents, such as 10%"),
        ([RATES, "--seeds=a"], "must be numbers, such as 0,1,2"),
    ],
)
def test_mistakes_end_in_one_line(
    more: list[str],
    message: str,
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(data_dir, tmp_path / "sweep", *more)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [("7", "--index=7: the runs of this sweep are 0 to 3"), ("x", "SLURM_ARRAY_TASK_ID=x is no")],
)
def test_slurm_gives_the_index(
    value: str,
    message: str,
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", value)
    assert main(words(data_dir, tmp_path / "sweep", RATES)) == 2
    assert message in capsys.readouterr().err
