"""`vtab` and `sweep` from weights that lie in a bucket."""

import json
from pathlib import Path
from unittest import mock

import pytest

from tests.bucket_api import Bucket
from tests.commands.test_sweep import TINY
from tests.data import vtab_data
from tests.experiments.test_vtab import CHANGES, MODEL, prepare
from vit_jax.__main__ import main
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import init_params
from vit_jax.weights.files import write_weights

SHORT = ["--config.optimizer.warmup_steps=1", "--config.total_steps=2"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))


def send(bucket: Bucket, folder: Path, model: ModelConfig, name: str) -> str:
    """Puts weights into the bucket, as `gs://bkt/NAME`."""
    write_weights(folder / "send/weights.npz", init_params(model, 0), model)
    bucket.objects.add_folder(folder / "send", "bkt", name)
    return f"gs://bkt/{name}"


def test_vtab(
    bucket: Bucket, cache: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "send").mkdir()
    weights = send(bucket, tmp_path, MODEL, "start")
    with mock.patch.dict(vtab_data.SIZES, {"train": 800, "validation": 200, "test": 44}):
        data_dir = prepare(tmp_path / "data", ("kitti_distance",))
    flags = [f"--data_dir={data_dir}", *CHANGES, "--config.evals.shifted=none", *SHORT]
    command = ["vtab", "--tasks=kitti_distance", f"--workdir={tmp_path / 'runs'}", *flags]
    assert main([*command, f"--weights={weights}"]) == 0
    config = json.loads((tmp_path / "runs/kitti_distance/config.json").read_text())
    assert config["init_from"] == weights
    capsys.readouterr()
    assert main([*command, f"--weights={weights}s"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and f"{weights}s" in line


@pytest.mark.slow
def test_sweep(bucket: Bucket, cache: None, tmp_path: Path) -> None:
    model = ModelConfig(
        *("ViT-Ti/2", 8),
        **{"depth": 1, "width": 16, "mlp_dim": 16, "num_heads": 2},
        num_classes=10,
        pooling="gap",
    ).completed()
    (tmp_path / "send").mkdir()
    weights = send(bucket, tmp_path, model, "start")
    command = [*TINY, *SHORT, "--grid.optimizer.lr=0.001", f"--workdir={tmp_path / 'sweep'}"]
    command = [*command, f"--config.init_from={weights}", "--seeds=0"]
    assert main([*command, f"--config.data.data_dir={tmp_path / 'data'}"]) == 0
    logs = [*(tmp_path / "sweep").glob("*/*/config.json")]
    assert len(logs) == 2
    assert {json.loads(log.read_text())["init_from"] for log in logs} == {weights}
