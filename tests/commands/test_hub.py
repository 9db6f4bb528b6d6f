"""Commands with weights of a Hub on this machine: what they write keeps the commit."""

import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.test_weights import DIGITS, MODEL, config
from tests.hub_server import Hub, read_folder
from tests.small_models import assert_same, random_params
from vit_jax.__main__ import main
from vit_jax.training.reporter import Reporter
from vit_jax.weights.files import open_weights, write_weights

NAME = "hf://org/tiny"


def publish(hub: Hub, tmp_path: Path, seed: int = 0) -> str:
    """Puts a model into the repository; returns the commit."""
    path = tmp_path / f"published{seed}" / "model.safetensors"
    params = random_params(MODEL, seed)
    write_weights(path, params, MODEL, layout="timm", class_names=DIGITS)
    return hub.add("org/tiny", read_folder(path.parent))


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    file = tmp_path / "digit.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save(file)
    return file


def test_a_run_starts_again_from_the_same_commit(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Interrupted before anything was saved, after which the branch has moved."""
    caplog.set_level(logging.INFO)
    first = publish(hub, tmp_path)
    more = ("total_steps=1", "optimizer.lr=1e-30", "optimizer.warmup_steps=0")
    run = tmp_path / "run"
    flags = config(tmp_path / "data", f"init_from={NAME}", *more)
    with monkeypatch.context() as patch:

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Reporter, "log_step", interrupt)
        assert main(["train", *flags, f"--workdir={run}"]) == 130
    stored = json.loads((run / "config.json").read_bytes())["init_from"]
    assert stored == f"{NAME}@{first}"
    assert publish(hub, tmp_path, seed=1) != first
    hub.asked.clear()
    assert main(["train", *flags, f"--workdir={run}"]) == 0
    assert not hub.asked
    assert f"init_from={NAME} is {NAME}@{first}, as this run started" in caplog.text
    started = random_params(MODEL)
    assert_same(open_weights(run).params, started)


def test_another_commit_is_another_run(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = publish(hub, tmp_path)
    run, other = tmp_path / "run", "f" * 40
    run.mkdir()
    (run / "lock").touch()
    (run / "config.json").write_text(json.dumps({"init_from": f"{NAME}@{first}"}))
    flags = config(tmp_path / "data", f"init_from={NAME}@{other}")
    assert main(["train", *flags, f"--workdir={run}"]) == 2
    assert f"has no revision {other}" in capsys.readouterr().err


def test_what_is_written_names_the_commit(hub: Hub, tmp_path: Path, digit: Path) -> None:
    wanted = f"{NAME}@{publish(hub, tmp_path)}"
    out = tmp_path / "out"
    out.mkdir()
    predict = ["predict", f"--weights={NAME}", f"--images={digit}"]
    assert main([*predict, f"--output={out / 'a.csv'}"]) == 0
    assert json.loads((out / "a.csv.json").read_bytes())["weights"] == wanted
    assert main([*predict, f"--embed={out / 'a.npz'}"]) == 0
    with np.load(out / "a.npz") as found:
        assert json.loads(found["made_by"].item())["weights"] == wanted
    scored = ["evaluate", f"--weights={NAME}", "--dataset=digits", f"--output={out / 'a.json'}"]
    assert main(scored) == 0
    assert json.loads((out / "a.json").read_bytes())[0]["weights"] == wanted
    target = out / "model.safetensors"
    assert main(["convert", f"--source={NAME}", f"--target={target}", "--layout=timm"]) == 0
    assert wanted in (out / "README.md").read_text().replace("\\", "")  # Markdown's.


def test_the_environment_of_the_library_is_the_users(hub: Hub, tmp_path: Path, digit: Path) -> None:
    """A process of its own, which reads HF_ENDPOINT, HF_HOME and HF_TOKEN at its start."""
    commit = publish(hub, tmp_path)
    hub.tokens = {"hf_secret"}
    home = tmp_path / "home"
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_secret",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-m", "vit_jax", "predict", f"--weights={NAME}"]
    command += ["--images", str(digit), f"--output={tmp_path / 'a.csv'}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {who for _, path, who in hub.asked if "org/tiny" in path} == {"Bearer hf_secret"}
    assert f"downloading {NAME}@{commit}" in done.stderr
    assert "hf_secret" not in done.stdout + done.stderr
    assert (home / f"hub/models--org--tiny/snapshots/{commit}/config.json").is_file()
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 5
    environment |= {"HF_TOKEN": "hf_other", "HF_HOME": str(tmp_path / "new")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {NAME}: no such repository") and "hf_other" not in done.stderr
