"""Runs with moments of other shapes than their parameters resume bit for bit."""

from pathlib import Path

import pytest

from tests.small_models import TINY_FLAGS
from tests.stopped_run import weights_of_two_runs

TINY = [
    *("train", "--config=configs/quickstart.py"),
    *TINY_FLAGS,
    # The MLPs' kernels are large enough to be factored.
    *("--config.model.depth=2", "--config.model.width=32", "--config.model.mlp_dim=40"),
    *("--config.data.batch_size=16", "--config.optimizer.warmup_steps=2", "--config.log_every=2"),
    *("--config.evals={}", "--config.total_steps=6", "--config.checkpoint.every_steps=3"),
]
OPTIMIZERS = {
    "adafactor": ["--config.optimizer.momentum_dtype=bfloat16"],
    "optax:lamb": ["--config.optimizer.arguments.weight_decay=0.1"],
}


@pytest.mark.parametrize("name", ["adafactor", pytest.param("optax:lamb", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("shared_programs")
def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(name: str, tmp_path: Path) -> None:
    command = [*TINY, f"--config.data.data_dir={tmp_path / 'data'}", *OPTIMIZERS[name]]
    command += [f"--config.optimizer.name={name}", "--config.optimizer.weight_decay=0"]
    whole, stopped = weights_of_two_runs(command, tmp_path)
    assert whole == stopped
