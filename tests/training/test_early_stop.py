"""Early stopping: which step is the best, that its weights are the final ones, and all this again
after a run has been stopped."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never

import jax.numpy as jnp
import pytest

from tests.real_processes import wait_for_line
from tests.small_models import refusal
from tests.tiny_run import FLAGS, results, start
from vit_jax.__main__ import main
from vit_jax.data.config import DataConfig
from vit_jax.evaluation.classification import ClassificationConfig
from vit_jax.evaluation.config import EvalConfig
from vit_jax.models.config import ModelConfig
from vit_jax.parallel.processes import Preemption
from vit_jax.training.config import TrainConfig
from vit_jax.training.early_stop import BestStep, EarlyStopConfig
from vit_jax.training.final_weights import best_weights
from vit_jax.training.opening import make_best
from vit_jax.training.optimizer import OptimizerConfig
from vit_jax.training.reporter import Reporter
from vit_jax.training.step import TrainState

pytestmark = pytest.mark.usefixtures("shared_programs")


def follow(
    lower_is_better: bool, patience: int | None, values: list[float]
) -> tuple[list[int], int | None]:
    """The improvements, and the step at which it is over; a value every ten steps."""
    best, improvements = BestStep(lower_is_better, patience), []
    for step, value in zip(range(10, 1000, 10), values, strict=False):
        best.add(step, value)
        if best.step == step:
            improvements.append(step)
        # What a checkpoint holds says the same.
        best = BestStep(lower_is_better, patience).noted(json.loads(json.dumps(best.notes())))
        if best.is_over:
            return improvements, step
    return improvements, None


@pytest.mark.parametrize(
    ("metric", "patience", "values", "improvements", "over"),
    [
        ("top1", None, [0.1, 0.3, 0.2, 0.3, 0.4], [10, 20, 50], None),
        ("top1", 2, [0.1, 0.3, 0.2, 0.3, 0.4], [10, 20], 40),  # No better is not better.
        ("top1", 3, [0.1, 0.3, 0.2, 0.3, 0.4], [10, 20, 50], None),
        ("top5", 1, [0.5, 0.5], [10], 20),
        ("loss", 2, [2.0, 1.0, 1.5, 0.5, 0.6, 0.7], [10, 20, 40], 60),
        ("loss", 2, [math.nan, 3.0, math.nan, math.inf], [20], 40),
    ],
)
def test_the_best_step_and_patience(
    metric: str,
    patience: int | None,
    values: list[float],
    improvements: list[int],
    over: int | None,
) -> None:
    assert follow(metric == "loss", patience, values) == (improvements, over)


def config(early_stop: EarlyStopConfig, **evals: EvalConfig) -> TrainConfig:
    model, data = ModelConfig("ViT-Ti/8"), DataConfig("digits")
    return TrainConfig(
        model, data, OptimizerConfig(), total_steps=1, evals=evals, early_stop=early_stop
    )


def test_mistakes() -> None:
    val = ClassificationConfig("test", every_steps=5)
    assert refusal(EarlyStopConfig, "val", patience=0) == "patience must be at least 1, not 0"
    message = refusal(config, EarlyStopConfig("vall"), val=val)
    assert message == "early_stop.eval: no evaluation 'vall' in evals; did you mean 'val'?"
    message = refusal(config, EarlyStopConfig("val"), val=ClassificationConfig("test"))
    assert "would be ignored" in message and "give it every_steps" in message
    assert "the name is taken" in refusal(config, EarlyStopConfig("val"), val=val, best=val)


class Scored:
    """Evaluations whose scores are known, and of which the loss is best when lowest."""

    def score_names(self, name: str) -> tuple[str, ...]:
        return ("top1", "loss")

    def lower_is_better(self, name: str, score: str) -> bool:
        return score == "loss"


@pytest.mark.parametrize(
    ("metric", "mode", "lower"),
    [("top1", None, False), ("loss", None, True), ("loss", "max", False), ("top1", "min", True)],
)
def test_any_score_is_minimised_or_maximised(metric: str, mode: Any, lower: bool) -> None:
    val = ClassificationConfig("test", every_steps=5)
    setup: Any = SimpleNamespace(config=config(EarlyStopConfig("val", metric, mode), val=val))
    best = make_best(setup, Scored())
    assert best is not None and best.lower_is_better == lower


def test_a_score_that_the_evaluation_lacks() -> None:
    val = ClassificationConfig("test", every_steps=5)
    setup: Any = SimpleNamespace(config=config(EarlyStopConfig("val", "top2"), val=val))
    message = refusal(make_best, setup, Scored())
    assert message.startswith("config.early_stop.metric: evals.val has no score 'top2'")
    assert "did you mean 'top1'?" in message


# Runs, of a rate so high that the loss goes up and down.


EVERY = 4
RUN = [
    *FLAGS[1:],
    *("--config.optimizer.lr=0.02", "--config.optimizer.schedule=constant"),
    *("--config.data.subset=100", "--config.evals.test.every_steps=none"),
    *("--config.evals.val.split=train[1000:1200]", f"--config.evals.val.every_steps={EVERY}"),
]
PATIENT = [
    *("--config.total_steps=200", "--config.early_stop.eval=val"),
    *("--config.early_stop.metric=loss", "--config.early_stop.patience=3"),
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def train(workdir: Path, data_dir: Path, *more: str) -> int:
    directories = [f"--config.data.data_dir={data_dir}", f"--workdir={workdir}"]
    return main(["train", *RUN, *more, *directories])


@pytest.fixture(scope="module")
def stopped(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that patience has ended."""
    workdir = tmp_path_factory.mktemp("runs") / "patient"
    assert train(workdir, data_dir, *PATIENT) == 0
    return workdir


def lines(workdir: Path, name: str) -> dict[int, float]:
    read = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = [(line["step"], line[name]) for line in read if name in line]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_the_run_ends_and_says_which_step_is_the_best(stopped: Path) -> None:
    losses = lines(stopped, "val/loss")
    best, last = min(losses, key=lambda step: losses[step]), max(losses)
    assert list(losses) == list(range(EVERY, last + 1, EVERY))
    assert last == best + 3 * EVERY < 200
    assert lines(stopped, "best/step") == {last: best}
    assert lines(stopped, "best/val/loss") == {last: losses[best]}
    assert json.loads((stopped / "weights.json").read_text())["step"] == best
    assert list(lines(stopped, "test/loss")) == [last]
    # The newest two, and the best one.
    kept = {int(path.name) for path in (stopped / "checkpoints").iterdir()}
    assert {best, last} <= kept and len(kept) <= 4


def test_final_weights_and_evaluations_are_of_the_best_step(
    stopped: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (best,) = lines(stopped, "best/step").values()
    # The rate is constant, so a shorter run takes the same steps.
    assert train(tmp_path / "short", data_dir, f"--config.total_steps={best:.0f}") == 0
    weights = [(path / "weights.npz").read_bytes() for path in (stopped, tmp_path / "short")]
    assert weights[0] == weights[1]
    assert set(lines(stopped, "test/loss").values()) == set(
        lines(tmp_path / "short", "test/loss").values()
    )


def test_a_run_without_patience_takes_all_steps(
    stopped: Path, data_dir: Path, tmp_path: Path
) -> None:
    last = max(lines(stopped, "val/loss"))
    assert (
        train(
            tmp_path,
            data_dir,
            *PATIENT,
            "--config.early_stop.patience=none",
            f"--config.total_steps={last + EVERY}",
        )
        == 0
    )
    losses = lines(tmp_path, "val/loss")
    assert max(losses) == last + EVERY
    best = min(losses, key=lambda step: losses[step])
    assert lines(tmp_path, "best/step") == {last + EVERY: best}


def test_a_run_that_is_interrupted_anywhere_goes_on_bit_for_bit(
    stopped: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (best,), last = lines(stopped, "best/step").values(), max(lines(stopped, "val/loss"))
    evaluated, chosen = Reporter.log_evaluation, Reporter.log_final_weights
    # Before a checkpoint holds what was evaluated, and after the last step.
    moments = [("val", best), ("val", last), ("test", last)]

    def interrupt(self: Any, step: int, name: str, *given: Any) -> None:
        evaluated(self, step, name, *given)
        if moments and (name, step) == moments[0]:
            del moments[0]
            raise KeyboardInterrupt

    def interrupt_at_the_end(self: Any, *arguments: Any) -> Never:
        chosen(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "log_evaluation", interrupt)
    for _ in range(len(moments)):
        assert train(tmp_path, data_dir, *PATIENT) == 130
    assert not moments
    monkeypatch.setattr(Reporter, "log_final_weights", interrupt_at_the_end)
    for _ in range(2):
        assert train(tmp_path, data_dir, *PATIENT) == 130
    monkeypatch.undo()
    for _ in range(2):  # And once more, when it has ended.
        assert train(tmp_path, data_dir, *PATIENT) == 0
        assert results(tmp_path) == results(stopped)


def test_a_run_stopped_in_an_evaluation_still_owes_it(
    stopped: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (best,) = lines(stopped, "best/step").values()
    steps, calls = 0, 0
    log_step, reached = Reporter.log_step, Preemption.reached

    def count(self: Any, step: int, metrics: Any, *, waited: Any) -> None:
        nonlocal steps, calls
        steps, calls = step, 0
        log_step(self, step, metrics, waited=waited)

    def reached_in_the_evaluation(self: Any) -> Any:
        nonlocal calls
        calls += 1
        return (steps == best and calls > 1) or reached(self)

    monkeypatch.setattr(Reporter, "log_step", count)
    monkeypatch.setattr(Preemption, "reached", reached_in_the_evaluation)
    assert train(tmp_path, data_dir, *PATIENT) == 143
    assert best not in lines(tmp_path, "val/loss")
    monkeypatch.undo()
    assert train(tmp_path, data_dir, *PATIENT) == 0
    assert results(tmp_path) == results(stopped)


def test_an_older_checkpoint_finds_its_best_one(
    stopped: Path, data_dir: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(stopped, workdir)
    steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    shutil.rmtree(workdir / f"checkpoints/{steps[-1]}")
    assert train(workdir, data_dir, *PATIENT) == 0
    assert results(workdir) == results(stopped)


def test_a_best_checkpoint_that_is_gone_is_reported(
    stopped: Path,
    data_dir: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(stopped, workdir)
    (best,), last = lines(stopped, "best/step").values(), max(lines(stopped, "val/loss"))
    for path in (workdir / "checkpoints").iterdir():
        if int(path.name) != last:
            shutil.rmtree(path)
    # The run has ended: its weights are those of the best step, and stay.
    assert train(workdir, data_dir, *PATIENT) == 0
    assert "the run has ended" in capsys.readouterr().out
    assert results(workdir) == results(stopped)
    (workdir / "weights.npz").unlink()
    assert train(workdir, data_dir, *PATIENT) == 0
    assert f"the checkpoint of step {best:.0f} cannot be used" in caplog.text
    assert json.loads((workdir / "weights.json").read_text())["step"] == last
    assert f"final weights: step {last:g}" in capsys.readouterr().out


class Kept:
    """Checkpoints of which some can be read; their state is their step."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def restore_step(self, step: int, like: TrainState) -> TrainState | None:
        del like
        return state_of(step) if step in self.steps else None


def state_of(step: int) -> TrainState:
    return TrainState(jnp.int32(step), {"w": jnp.float32(step)}, (), None, jnp.int32(0))


@pytest.mark.parametrize(
    ("metric", "values", "kept", "chosen"),
    [
        ("top1", [0.1, 0.2, 0.8, 0.75], (10, 30), 30),
        ("top1", [0.1, 0.7, 0.8, math.nan], (30,), 30),
        # Those of the last step, where the best ones cannot be read.
        ("top1", [0.1, 0.2, 0.8, 0.75], (10, 20), 40),
        ("loss", [2.0, 1.5, 0.3, 0.5], (10, 20), 40),
        ("top1", [math.nan, math.nan, math.nan, math.nan], (10,), 40),
        ("loss", [2.0, 1.5, 0.6, 0.5], (10, 20), 40),
    ],
)
def test_the_best_weights_that_can_be_read(
    metric: str, values: list[float], kept: tuple[int, ...], chosen: int
) -> None:
    best = BestStep(lower_is_better=metric == "loss")
    for step, value in zip((10, 20, 30, 40), values, strict=True):
        best.add(step, value)
    step, params = best_weights(best, 40, state_of(40), Kept(*kept))
    assert (step, float(params["w"])) == (chosen, chosen)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(stopped: Path, data_dir: Path, tmp_path: Path) -> None:
    last = max(lines(stopped, "val/loss"))
    for moment in (f"step {last - EVERY}: val", f"step {last}: test"):
        process = start(tmp_path, data_dir, *RUN[1:], *PATIENT)
        wait_for_line(process, moment)
        process.kill()
        process.communicate()
    process = start(tmp_path, data_dir, *RUN[1:], *PATIENT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert results(tmp_path) == results(stopped)
