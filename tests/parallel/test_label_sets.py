"""Pre-training with as many classes as JFT-300M has, on eight simulated devices."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.eight_devices import EightDevices
from tests.programs.run_here import run_here
from vit_jax.config import load_config
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import make_loader, prepare

CLASSES, BIAS, BATCH = 18_291, -10.0, 64


def test_the_first_loss_is_the_closed_form(tmp_path: Path, eight_devices: EightDevices) -> None:
    overrides = [
        *("--config.data.dataset=long_tail/images=320", f"--config.data.batch_size={BATCH}"),
        *("--config.data.subset=256", "--config.data.subset_seed=3"),
        *("--config.model.width=32", "--config.model.mlp_dim=32", "--config.model.num_heads=2"),
        *("--config.optimizer.warmup_steps=1", "--config.optimizer.micro_batches=2"),
        *("--config.total_steps=6", "--config.evals.val.every_steps=3", "--config.log_every=1"),
        f"--config.data.data_dir={tmp_path / 'data'}",
    ]
    command = ["train", "--config=configs/long_tail.py", *overrides]
    output = eight_devices.run(run_here, [*command, f"--workdir={tmp_path / 'run'}"])
    assert "val top-1" in output
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    losses = [line["train/loss"] for line in metrics if "train/loss" in line]

    setup = prepare(build(TrainConfig, load_config("configs/long_tail.py", overrides)))
    with make_loader(setup, start=0) as loader:
        labels = np.asarray(next(loader)["labels"])
    k = (labels >= 0).sum() / BATCH
    assert 1 < k < 2
    # A head of zeros: each of the k labels costs log(1 + e^10), each other class log(1 + e^-10).
    expected = k * np.log1p(np.exp(-BIAS)) + (CLASSES - k) * np.log1p(np.exp(BIAS))
    assert losses[0] == pytest.approx(expected, rel=1e-5)
    assert losses[-1] < losses[0] - 0.5
