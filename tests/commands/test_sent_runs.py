"""Runs and weights that someone sent: what their files say is data."""

import functools
import json
import operator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bucket_api import Bucket
from tests.hub_server import Hub
from tests.small_models import SMALL, random_params
from vit_jax.__main__ import main
from vit_jax.weights.files import write_weights


@pytest.mark.parametrize("command", ["evaluate", "report"])
@pytest.mark.parametrize("address", ["gs://bucket/data", "s3://bucket/data", "http://host/data"])
@pytest.mark.parametrize("key", ["data.data_dir", "data.dataset", "evals.test.dataset"])
def test_the_config_of_a_run_reaches_no_network(
    key: str, address: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config: dict[str, Any] = {"data": {"dataset": "digits"}, "evals": {"test": {"split": "test"}}}
    *sections, last = key.split(".")
    functools.reduce(operator.getitem, sections, config)[last] = address
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "lock").touch()
    run = f"--weights={tmp_path}" if command == "evaluate" else str(tmp_path)
    assert main([command, run]) == 2
    error = capsys.readouterr().err
    assert f"add --config.{key}={address}" in error and error.count("\n") == 1


def test_report_reads_an_address_that_is_typed_and_takes_no_other_change(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "any").touch()
    bucket.objects.add_folder(tmp_path, "bkt", "any")
    run = tmp_path / "run"
    run.mkdir()
    config = {
        "model": {"name": "ViT-Ti/8"},
        "data": {"dataset": "gs://bkt/sent", "train": "train", "batch_size": 2},
        "optimizer": {"name": "adamw", "lr": 0.1},
        "evals": {"test": {"split": "test"}},
        "total_steps": 1,
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "lock").touch()
    command = ["report", str(run), f"--output={tmp_path / 'a.html'}"]
    assert main([*command, "--config.data.dataset=gs://bkt/other"]) == 2
    assert "would be ignored: it only allows `report` to read" in capsys.readouterr().err
    assert main(command) == 2
    flag = "--config.data.dataset=gs://bkt/sent"
    assert f"add {flag}\n" in capsys.readouterr().err
    assert main([*command, flag]) == 0
    assert "gs://bkt/sent does not exist" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(
    ("evaluation", "key"),
    [
        ({"kind": "few_shot", "draws_file": "FILE"}, "draws_file"),
        ({"kind": "vizwiz", "annotations": "a.json", "submission": "FILE"}, "submission"),
        ({"kind": "imagenet_real"}, "labels"),
    ],
)
def test_the_config_of_a_run_writes_no_file_and_downloads_no_labels(
    evaluation: dict[str, str], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("mine")
    named = {k: str(file) if value == "FILE" else value for k, value in evaluation.items()}
    config = {
        "model": {"name": "ViT-Ti/8"},
        "data": {"dataset": "digits", "train": "train", "batch_size": 2},
        "optimizer": {"name": "adamw", "lr": 0.1},
        "evals": {"x": {"split": "test", **named}},
        "total_steps": 1,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "lock").touch()
    assert main(["evaluate", f"--weights={tmp_path}"]) == 2
    error = capsys.readouterr().err
    flag = f"--config.evals.x.{key}={named.get(key)}"
    assert f"only if you say so: add {flag}\n" in error and error.count("\n") == 1
    assert main(["evaluate", f"--weights={tmp_path}", flag]) == 2  # There are no weights.
    assert "if you say so" not in capsys.readouterr().err
    assert file.read_text() == "mine"


@pytest.mark.parametrize("start", ["hf://org/tiny", f"hf://org/tiny@{'a' * 40}"])
def test_what_a_run_started_from_is_not_asked_for(
    start: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its config names a repository; commands on its weights leave that alone."""
    monkeypatch.setenv("VIT_JAX_STORAGE", hub.address)
    hub.add("org/tiny", {"model.safetensors": b"?"})
    run, photos = tmp_path / "run", tmp_path / "photos"
    write_weights(run / "weights.npz", random_params(SMALL), SMALL, class_names=tuple("abcde"))
    config = {
        "init_from": start,
        "model": {"name": "ViT-mu/8", "image_size": 16, "depth": 2},
        "data": {"dataset": str(photos), "train": "all", "batch_size": 2},
        "optimizer": {"name": "adamw", "lr": 0.1},
        "evals": {"test": {"split": "all"}},
        "total_steps": 1,
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "lock").touch()
    for name in "ab":
        (photos / name).mkdir(parents=True)
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(photos / name / "0.png")
    out = tmp_path / "out"
    out.mkdir()
    for command in (
        ["predict", f"--weights={run}", "--images", str(photos), f"--output={out / 'a.csv'}"],
        ["evaluate", f"--weights={run}"],
        ["evaluate", f"--weights={run}", f"--dataset={photos}", "--split=all"],
        ["convert", f"--source={run}", f"--target={out / 'model.safetensors'}", "--layout=timm"],
        ["report", str(run), f"--output={out / 'report.html'}"],
    ):
        assert main(command) == 0, command
    assert not hub.asked
    assert start in (out / "README.md").read_text().replace("\\", "")  # Markdown's.
