"""What a run does when its loss is not finite."""

import dataclasses
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.eight_devices import EightDevices
from tests.programs.poisoned import train_poisoned
from tests.real_processes import TWO_BY_FOUR, finish, start_on
from tests.shared_programs import sharing
from tests.small_models import refusal
from tests.tiny_run import results
from vit_jax.runs.checkpoints import CheckpointConfig, Checkpoints
from vit_jax.runs.metrics import MetricsWriter
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.rewinding import MAX_REWINDS
from vit_jax.training.run import Run
from vit_jax.training.setup import Setup, make_loader, prepare

pytestmark = [pytest.mark.xdist_group("rewinding"), pytest.mark.usefixtures("shared_programs")]

STEPS = 16


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run whose rate, dropout, momenta and average all tell which steps were taken."""
    return {
        "model": {"name": "ViT-mu/8", "image_size": 8, "depth": 1, "dropout": 0.1},
        "data": {
            **{"dataset": "digits", "data_dir": str(tmp_path_factory.mktemp("data"))},
            **{"batch_size": 8, "workers": 0},
        },
        "optimizer": {"lr": 0.01, "warmup_steps": 4, "average": 0.9, "weight_decay": 0.1},
        "total_steps": STEPS,
        "log_every": 1,
        "evals": {"test": {"split": "test[:64]", "every_steps": 6}},
        "checkpoint": {"every_steps": 5},
        "on_non_finite": "rewind",
        "callbacks": (),
    }


# Steps whose ranges follow each other at once.
TWICE = [8, 9]


@pytest.fixture(scope="module")
def whole(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a run that was rewound twice."""
    with sharing():
        return train_poisoned(TWICE, config, tmp_path_factory.mktemp("runs") / "whole")


def lines(workdir: Path) -> list[dict[str, float]]:
    read = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))} for line in read
    ]


def logged(workdir: Path, name: str) -> dict[int, float]:
    found = [(int(line["step"]), line[name]) for line in lines(workdir) if name in line]
    assert len(dict(found)) == len(found)
    return dict(found)


def prepared(config: dict[str, Any]) -> Setup:
    return prepare(build(TrainConfig, config))


def without(setup: Setup, passed: range) -> Any:
    """The last state of a run that does nothing in some steps, numbered from 1.

    The rate and the random draws of each other step are those of its number.
    """

    def numbered(part: Any, number: int) -> Any:
        if isinstance(part, optax.ScaleByScheduleState):
            return optax.ScaleByScheduleState(count=jnp.int32(number))
        return part

    state, step = setup.program.start(), setup.program.step()
    with make_loader(setup, 0) as loader:
        for number, batch in enumerate(loader):
            if number + 1 not in passed:
                opt_state = tuple(numbered(part, number) for part in state.opt_state)
                state = dataclasses.replace(state, step=jnp.int32(number), opt_state=opt_state)
                state, _ = step(state, batch, ())
    return state


def parts(state: Any) -> list[np.ndarray]:
    """All arrays of a state, but those that count the steps of the run."""
    opt_state = [p for p in state.opt_state if not isinstance(p, optax.ScaleByScheduleState)]
    tree = (state.params, opt_state, state.averaged)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    ("bad", "passed"),
    [
        ([8], range(6, 9)),
        ([3], range(1, 4)),
        pytest.param([STEPS], range(16, 17), marks=pytest.mark.slow),
    ],
)
def test_a_range_passes_without_an_update(
    bad: list[int], passed: range, config: dict[str, Any], tmp_path: Path
) -> None:
    train_poisoned(bad, config, tmp_path)
    setup = prepared(config)
    with Checkpoints(tmp_path / "checkpoints", CheckpointConfig()) as checkpoints:
        restored = checkpoints.restore(setup.program.state)
    assert restored is not None and restored.step == STEPS and restored.state.step == STEPS
    assert restored.notes is not None
    assert restored.notes["passed"] == [[passed[0], passed[-1]]]
    expected = parts(without(setup, passed))
    for actual, value in zip(parts(restored.state), expected, strict=True):
        np.testing.assert_array_equal(actual, value)
    # Each step is told once, and a passed one not at all; the schedule goes on.
    losses = logged(tmp_path, "train/loss")
    assert sorted(losses) == [step for step in range(1, STEPS + 1) if step not in passed]
    assert all(map(math.isfinite, losses.values()))
    assert list(losses) == sorted(losses)
    rates = logged(tmp_path, "train/lr")
    schedule = setup.program.schedule
    assert rates == {step: pytest.approx(float(schedule(step - 1))) for step in losses}
    assert logged(tmp_path, "rewind/first") == {passed[-1]: passed[0]}
    assert logged(tmp_path, "rewind/last") == {passed[-1]: passed[-1]}
    evaluated = [step for step in (6, 12) if step not in passed] + [STEPS]
    assert list(logged(tmp_path, "test/loss")) == evaluated


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(Checkpoints, "restore", marks=pytest.mark.slow),
        pytest.param(MetricsWriter, "cut", marks=pytest.mark.slow),
        (Run, "_save"),
        (Run, "begin"),
    ],
)
def test_a_run_interrupted_in_a_rewind_goes_on_bit_for_bit(
    owner: Any, name: str, whole: Path, config: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rewind, call = Run.rewind, getattr(owner, name)

    def arm(self: Run, error: Any) -> None:
        monkeypatch.setattr(owner, name, interrupt)
        rewind(self, error)

    def interrupt(*given: Any) -> Any:
        if name != "begin":  # With what it does done, but for the last one.
            call(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "rewind", arm)
    with pytest.raises(KeyboardInterrupt):
        train_poisoned(TWICE, config, tmp_path)
    monkeypatch.undo()
    again = train_poisoned(TWICE, config, tmp_path)
    assert again.read_bytes() == whole.read_bytes()
    assert lines(tmp_path) == lines(whole.parent)


def test_several_devices_rewind_alike(
    whole: Path, config: dict[str, Any], tmp_path: Path, eight_devices: EightDevices
) -> None:
    eight_devices.run(train_poisoned, TWICE, config, tmp_path)
    assert_alike(tmp_path, whole.parent)


def assert_alike(workdir: Path, other: Path) -> None:
    """Compares metrics of two topologies."""
    actual, expected = lines(workdir), lines(other)
    for line, value in zip(actual, expected, strict=True):
        assert line == {name: pytest.approx(x, abs=1e-4) for name, x in value.items()}


@pytest.mark.slow
def test_several_processes_that_are_killed_in_a_rewind_go_on_bit_for_bit(
    whole: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "config.py"
    file.write_text(f"def get_config():\n    return {config!r}\n")
    program = [sys.executable, "-m", "tests.programs.poisoned", ",".join(map(str, TWICE))]
    for name, kills in (("killed", ["--kill"]), ("killed", []), ("undisturbed", [])):
        flags = ["train", f"--config={file}", f"--workdir={tmp_path / name}"]
        processes = start_on(TWO_BY_FOUR, [*program, *kills, *flags])
        finish(processes, code=-signal.SIGKILL if kills else 0)
    assert results(tmp_path / "killed") == results(tmp_path / "undisturbed")
    assert_alike(tmp_path / "killed", whole.parent)


def test_as_many_rewinds_as_allowed(whole: Path, config: dict[str, Any], tmp_path: Path) -> None:
    once = config | {"max_rewinds": 1}
    message = refusal(train_poisoned, TWICE, once, tmp_path)
    assert message.startswith("step 9: loss is nan; config.max_rewinds=1 is used up")
    assert "resumes after step 8" in message
    assert logged(tmp_path, "rewind/count") == {8: 1}
    # The ranges are in the checkpoint: another start has no more of them.
    assert refusal(train_poisoned, TWICE, once, tmp_path) == message
    # As often as the default says, which is 3, and with the same result.
    assert train_poisoned(TWICE, config, tmp_path).read_bytes() == whole.read_bytes()
    assert MAX_REWINDS == 3


def test_without_the_option_the_line_says_where_it_would_resume(
    whole: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    plain = config | {"on_non_finite": "stop"}
    message = refusal(train_poisoned, TWICE, plain, tmp_path / "a")
    assert message.startswith("step 8: loss is nan; with --config.on_non_finite=rewind")
    assert "resumes after step 5 and passes steps 6 to 8" in message
    # The option may be added later.
    assert train_poisoned(TWICE, config, tmp_path / "a").read_bytes() == whole.read_bytes()
    message = refusal(train_poisoned, [2], plain, tmp_path / "b")
    assert "after step 0 and passes steps 1 to 2" in message


def test_a_state_that_is_not_finite_under_a_finite_loss(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the update after the gradient overflowed: only the save sees it.
    monkeypatch.setattr("vit_jax.training.reporter.math.isfinite", lambda value: True)
    train_poisoned([10], config, tmp_path)
    assert logged(tmp_path, "rewind/first") == {10: 6}


def test_mistakes(config: dict[str, Any]) -> None:
    message = refusal(build, TrainConfig, config | {"on_non_finite": "stop", "max_rewinds": 2})
    assert "max_rewinds would be ignored" in message and "on_non_finite='rewind'" in message
    assert "at least 1" in refusal(build, TrainConfig, config | {"max_rewinds": 0})
    taken = config | {"evals": {"rewind": {"split": "test"}}}
    assert "the name is taken" in refusal(build, TrainConfig, taken)
