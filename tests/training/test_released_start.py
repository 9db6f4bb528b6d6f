"""configs/photos.py without WEIGHTS: which released file it takes, and what the network does."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from tests.small_models import SMALL, random_params, refusal
from vit_jax.__main__ import main
from vit_jax.config import load_config
from vit_jax.training import choosing, released_start
from vit_jax.training.choices import complete
from vit_jax.training.released_start import best_release
from vit_jax.weights.catalogue import download
from vit_jax.weights.catalogue.names import find
from vit_jax.weights.files import write_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of each of two classes."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label in "ab":
        (root / label).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    return root


@pytest.fixture(autouse=True)
def _asked_once(storage_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RETRY_DELAYS", ())


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the speed of the machine, in multiply-adds a second, and its memory."""

    def set_speed(macs: float, memory: int = 2**40) -> None:
        monkeypatch.setattr(released_start, "macs_per_second", lambda: macs)
        monkeypatch.setattr(released_start, "_memory", lambda: memory)

    return set_speed


# Multiply-adds at 224 pixels, in 10^9, as timm's table of models has them: ViT-S/32 1.15, R26+S/32
# 3.5, B/16 17.6. Top-1 as in AugReg's Table 3.
@pytest.mark.parametrize(
    ("macs", "images", "model", "top1"),
    [
        (1e15, 100, "R50+ViT-L/32", 85.99),
        (1e11, 330, "ViT-B/16", 85.49),
        (4e10, 330, "R26+ViT-S/32", 83.85),
        (4e10, 2000, "ViT-S/32", 79.58),
        (4e10, 20_000, "R+ViT-Ti/16", 75.40),  # None takes less than a minute: the quickest.
    ],
)
def test_a_cpu_takes_the_best_of_those_that_are_quick(
    macs: float, images: int, model: str, top1: float, speed: Any
) -> None:
    speed(macs)
    release, reason = best_release(images, on_cpu=True)
    assert (release.model, release.accuracy, release.resolution) == (model, top1, 224)
    assert f"{top1:.2f} % top-1 on ImageNet (AugReg Table 3" in reason
    assert f"features of {images:,} images" in reason
    assert ("less than a minute" in reason) == (images < 20_000)


def test_an_accelerator_takes_the_best_that_fits(speed: Any) -> None:
    speed(0.0, memory=80 * 2**30)
    assert best_release(10**7, on_cpu=False)[0].model == "R50+ViT-L/32"
    # 330 million parameters at 16 bytes are more than half of 8 GiB, B/16's 103 million are not.
    speed(0.0, memory=8 * 2**30)
    release, reason = best_release(10**7, on_cpu=False)
    assert release.model == "ViT-B/16" and "fit into 8 GiB" in reason
    # 102.6 million parameters with the head of 21,843 classes, in float32.
    assert "391 MiB from http://127.0.0.1" in reason


def release_small(storage: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes a model as small as these tests the one released file that is known."""
    known = find("imagenet21k/ViT-B_16")
    small = dataclasses.replace(
        known, model="ViT-mu/8", resolution=16, num_classes=5, has_pre_logits=False
    )
    monkeypatch.setattr(released_start, "releases", lambda: [small])
    monkeypatch.setattr(
        released_start, "_model", lambda _: dataclasses.replace(SMALL, num_classes=5)
    )
    file = storage / "vit_models/imagenet21k/ViT-B_16.npz"
    file.parent.mkdir(parents=True)
    write_weights(file, random_params(SMALL), SMALL)
    file.with_suffix(".json").unlink()
    return small.name


def test_photographs_alone_are_enough(
    folder: Path,
    storage_folder: Path,
    speed: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    speed(1e12)
    name = release_small(storage_folder, monkeypatch)
    flags = [f"--config=configs/photos.py:{folder}", f"--workdir={tmp_path / 'run'}"]
    flags += ["--config.total_steps=1", "--config.callbacks=()"]
    assert main(["train", *flags]) == 0
    out = capfd.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("init_from="))
    size = sum(x.size for x in jax.tree.leaves(random_params(SMALL))) * 4 / 2**20
    assert f"init_from={name}: of the released files" in line and "83.97 % top-1" in line
    assert f"; {size:,.0f} MiB from http://127.0.0.1" in line
    assert "downloading http://127.0.0.1" in caplog.text
    assert json.loads((tmp_path / "run/config.json").read_bytes())["init_from"] == name
    assert main(["train", *flags]) == 0  # The record has it.
    assert "the run has ended" in capfd.readouterr().out


def test_without_a_network_it_says_three_ways(
    folder: Path, storage_folder: Path, speed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed(1e12)
    release_small(storage_folder, monkeypatch)
    monkeypatch.setenv("VIT_JAX_STORAGE", "http://127.0.0.1:9")
    lines: list[str] = []
    values = load_config(f"configs/photos.py:{folder}")
    message = refusal(complete, values, say=lines.append)
    assert "check the network, then use the same command again" in message
    assert f"or put the file at {tmp_path}/cache/vit_models/imagenet21k/ViT-B_16.npz" in message
    assert "or give weights that are here, as in configs/photos.py:FOLDER,WEIGHTS" in message
    assert lines[-1].startswith("init_from=")  # Size and source are known before the download.


def test_a_run_that_was_sent_downloads_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its record starts from is downloaded only if the user names it."""
    monkeypatch.setattr(choosing, "best_release", lambda *_, **__: pytest.fail("chosen again"))
    for start in ("imagenet21k/ViT-B_16", f"hf://org/tiny@{'a' * 40}", "augreg/B_16"):
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        (run / "lock").touch()
        (run / "config.json").write_text(json.dumps({"init_from": start}))
        values = load_config(f"configs/photos.py:{folder}")
        message = refusal(complete, values, run)
        assert f"add --config.init_from={start}" in message
