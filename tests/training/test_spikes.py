"""What a run does when its loss is far above those of the steps before."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.eight_devices import EightDevices
from tests.programs.poisoned import SPIKE, train_poisoned
from tests.real_processes import TWO_BY_FOUR, finish, start_on
from tests.shared_programs import sharing
from tests.small_models import refusal
from tests.tiny_run import results
from vit_jax.errors import SpikeError
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.reporter import Reporter
from vit_jax.training.spikes import WINDOW, RecentLosses

pytestmark = [pytest.mark.xdist_group("rewinding"), pytest.mark.usefixtures("shared_programs")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "model": {"name": "ViT-mu/8", "image_size": 8, "depth": 1, "dropout": 0.1},
        "data": {
            **{"dataset": "digits", "data_dir": str(tmp_path_factory.mktemp("data"))},
            **{"batch_size": 8, "workers": 0},
        },
        "optimizer": {"lr": 0.01, "warmup_steps": 4, "average": 0.9},
        "total_steps": 16,
        "log_every": 1,
        "checkpoint": {"every_steps": 5},
        "callbacks": (),
    }


# The first that has six losses before it, and a later one.
AT = [8, 13]


@pytest.fixture(scope="module")
def with_nan(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was rewound at the same steps for losses that are not finite."""
    workdir = tmp_path_factory.mktemp("runs") / "nan"
    with sharing():
        train_poisoned(AT, config | {"on_non_finite": "rewind"}, workdir)
    return workdir


def test_a_spike_is_more_than_a_multiple_of_the_median_of_the_window() -> None:
    losses = np.random.default_rng(0).gamma(2.0, size=3 * WINDOW)
    for multiple in (1.5, 3.0):
        recent, spikes = RecentLosses(multiple), []
        for step, loss in enumerate(losses):
            # As a resume reads it from the notes of a checkpoint.
            recent = RecentLosses(multiple, json.loads(json.dumps(recent.values)))
            try:
                recent.add(step, float(loss))
            except SpikeError as error:
                assert error.step == step
                spikes.append(step)
                recent = RecentLosses(None, recent.values)
                recent.add(step, float(loss))
        expected = [
            step
            for step in range(WINDOW, len(losses))
            if losses[step] > multiple * np.median(losses[step - WINDOW : step])
        ]
        assert spikes == expected and len(expected) >= 5


def test_losses_that_are_not_positive_have_no_spikes() -> None:
    recent = RecentLosses(2.0)
    for step in range(2 * WINDOW):
        recent.add(step, -1.0 if step < 1.5 * WINDOW else 100.0)


def test_a_rewind_is_that_of_a_loss_that_is_not_finite(
    with_nan: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    spiking = config | {"on_spike": "rewind"}
    weights = train_poisoned(AT, spiking, tmp_path, SPIKE)
    assert weights.read_bytes() == (with_nan / "weights.npz").read_bytes()
    assert results(tmp_path) == results(with_nan)


def test_the_median_is_the_same_after_a_resume(
    with_nan: Path, config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_step = Reporter.log_step

    def interrupt(self: Any, step: int, metrics: Any, *, waited: float) -> None:
        log_step(self, step, metrics, waited=waited)
        if step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "log_step", interrupt)
    spiking = config | {"on_spike": "rewind"}
    with pytest.raises(KeyboardInterrupt, match="after step 5"):
        train_poisoned(AT, spiking, tmp_path, SPIKE)
    monkeypatch.undo()
    # Four of the six losses before step 8 are those of the checkpoint.
    train_poisoned(AT, spiking, tmp_path, SPIKE)
    assert results(tmp_path) == results(with_nan)


def test_by_default_nothing_happens_and_stop_says_how_to_go_on(
    config: dict[str, Any], tmp_path: Path
) -> None:
    # A second spike would make weights a million times larger, and their gradients infinite.
    train_poisoned(AT[:1], config, tmp_path / "ignored", SPIKE)
    stopping = config | {"on_spike": "stop", "spike_multiple": 4.5}
    message = refusal(train_poisoned, AT, stopping, tmp_path / "run", SPIKE)
    assert message.startswith("step 8: loss is 2") and "more than 4.5 times 2." in message
    assert "with --config.on_spike=rewind, the same command resumes after step 5" in message
    assert "--config.on_spike=ignore" in message
    # It may be added later.
    spiking = config | {"on_spike": "rewind", "max_rewinds": 1}
    message = refusal(train_poisoned, AT, spiking, tmp_path / "run", SPIKE)
    assert message.startswith("step 13: ") and "max_rewinds=1 is used up" in message
    train_poisoned(AT, config, tmp_path / "run", SPIKE)


def test_several_devices_see_the_same_spikes(
    with_nan: Path, config: dict[str, Any], tmp_path: Path, eight_devices: EightDevices
) -> None:
    eight_devices.run(train_poisoned, AT, config | {"on_spike": "rewind"}, tmp_path, SPIKE)
    assert_alike(tmp_path, with_nan)


def assert_alike(workdir: Path, other: Path) -> None:
    for line, value in zip(results(workdir)[0], results(other)[0], strict=True):
        assert line == {name: pytest.approx(x, abs=1e-4) for name, x in value.items()}


@pytest.mark.slow
def test_several_processes_that_are_killed_in_a_rewind_go_on_bit_for_bit(
    with_nan: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "config.py"
    spiking = config | {"on_spike": "rewind"}
    file.write_text(f"def get_config():\n    return {spiking!r}\n")
    steps = ",".join(map(str, AT))
    program = [sys.executable, "-m", "tests.programs.poisoned", steps, "--spikes"]
    for name, kills in (("killed", ["--kill"]), ("killed", []), ("undisturbed", [])):
        flags = ["train", f"--config={file}", f"--workdir={tmp_path / name}"]
        processes = start_on(TWO_BY_FOUR, [*program, *kills, *flags])
        finish(processes, code=-signal.SIGKILL if kills else 0)
    assert results(tmp_path / "killed") == results(tmp_path / "undisturbed")
    assert_alike(tmp_path / "killed", with_nan)


def test_mistakes(config: dict[str, Any]) -> None:
    def message(**keys: Any) -> str:
        return refusal(build, TrainConfig, config | keys)

    assert "spike_multiple would be ignored" in message(spike_multiple=3.0)
    assert "on_spike='rewind'" in message(spike_multiple=3.0)
    for multiple in (1.0, 0.0, -2.0):
        refused = message(on_spike="stop", spike_multiple=multiple)
        assert "spike_multiple must be above 1" in refused
    assert "config.spike_multiple" in message(on_spike="stop", spike_multiple=float("inf"))
    refused = message(on_spike="rewinds")
    assert "config.on_spike" in refused and "ignore" in refused and "rewind" in refused
    build(TrainConfig, config | {"on_spike": "rewind", "max_rewinds": 2})
