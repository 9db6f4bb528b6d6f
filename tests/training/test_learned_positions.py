"""Runs with each cell of Table 8 resume bit for bit."""

from pathlib import Path
from typing import Any

import pytest

from tests.small_models import TINY_FLAGS
from vit_jax.__main__ import main
from vit_jax.training.reporter import Reporter

TINY = [
    *("train", "--config=configs/quickstart.py", *TINY_FLAGS, "--config.model.depth=2"),
    *("--config.data.batch_size=16", "--config.optimizer.warmup_steps=2", "--config.log_every=2"),
    *("--config.evals={}", "--config.total_steps=6", "--config.checkpoint.every_steps=3"),
]
FORMS = (
    *("none", "learned", "learned_layers", "learned_shared"),
    *("learned2d", "learned2d_layers", "learned2d_shared", "relative"),
)


@pytest.mark.slow
@pytest.mark.parametrize("positions", FORMS)
@pytest.mark.usefixtures("shared_programs")
def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(
    positions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*TINY, f"--config.data.data_dir={tmp_path / 'data'}"]
    command += [f"--config.model.positions={positions}"]
    assert main([*command, f"--workdir={tmp_path / 'whole'}"]) == 0
    log_step = Reporter.log_step

    def interrupt(self: Any, step: int, scalars: Any, *, waited: Any) -> None:
        log_step(self, step, scalars, waited=waited)
        if step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "log_step", interrupt)
    assert main([*command, f"--workdir={tmp_path / 'stopped'}"]) == 130
    monkeypatch.undo()
    assert main([*command, f"--workdir={tmp_path / 'stopped'}"]) == 0
    whole, stopped = ((tmp_path / run / "weights.npz").read_bytes() for run in ("whole", "stopped"))
    assert whole == stopped
