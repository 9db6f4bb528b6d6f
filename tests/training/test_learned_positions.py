"""Runs with each cell of Table 8 resume bit for bit."""

from pathlib import Path

import pytest

from tests.small_models import TINY_FLAGS
from tests.stopped_run import weights_of_two_runs

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
    positions: str, tmp_path: Path
) -> None:
    command = [*TINY, f"--config.data.data_dir={tmp_path / 'data'}"]
    command += [f"--config.model.positions={positions}"]
    whole, stopped = weights_of_two_runs(command, tmp_path)
    assert whole == stopped
