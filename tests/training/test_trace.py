"""Traces of steps, read back from the file that TensorBoard's profiler shows."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.small_models import TINY_FLAGS
from vit_jax.__main__ import main
from vit_jax.parallel.processes import Preemption

pytestmark = pytest.mark.usefixtures("shared_programs")

RUN = [
    *("train", "--config=configs/quickstart.py", "--config.total_steps=8", "--config.log_every=2"),
    *TINY_FLAGS,
    *("--config.data.batch_size=16", "--config.data.workers=0"),
    *("--config.optimizer.warmup_steps=2", "--config.evals.test.every_steps=4"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*RUN, f"--config.data.data_dir={tmp_path_factory.mktemp('data')}"]


def events(workdir: Path) -> list[dict[str, Any]]:
    (file,) = workdir.glob("profile/plugins/profile/*/*.trace.json.gz")
    assert list(file.parent.glob("*.xplane.pb"))
    return json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]


def traced_steps(workdir: Path) -> list[int]:
    marks = [event for event in events(workdir) if event.get("name") == "train"]
    return sorted(int(event["args"]["step_num"]) for event in marks)


def test_a_trace_holds_the_steps_asked_for_alone(
    run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*run, f"--workdir={tmp_path}", "--profile=3:4"]) == 0
    assert traced_steps(tmp_path) == [3, 4]
    # The evaluation after step 4 is not among them.
    functions = {event["name"] for event in events(tmp_path) if "name" in event}
    assert any("loader.py" in name for name in functions)
    assert not any("passes.py" in name for name in functions)
    # The same command resumes, but steps of the past are not traced again.
    (tmp_path / "weights.npz").unlink()
    capsys.readouterr()
    assert main([*run, f"--workdir={tmp_path}", "--profile=3:4"]) == 0
    assert "step 4 is past: nothing is traced" in capsys.readouterr().out
    assert traced_steps(tmp_path) == [3, 4]


def test_a_run_that_is_stopped_ends_its_trace(
    run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def reached(self: Any) -> bool:
        nonlocal calls
        calls += 1
        return calls == 3

    monkeypatch.setattr(Preemption, "reached", reached)
    assert main([*run, f"--workdir={tmp_path}", "--profile=2:6"]) == 143
    assert traced_steps(tmp_path) == [2, 3]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("7:9", "--profile=7:9: the run ends with step 8"),
        ("4:3", "argument --profile: '4:3'"),
        ("0:3", "argument --profile: '0:3'"),
        ("3", "argument --profile: '3'"),
    ],
)
def test_steps_that_there_are_not(
    steps: str,
    message: str,
    run: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*run, f"--workdir={tmp_path / 'run'}", f"--profile={steps}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "run").exists()
