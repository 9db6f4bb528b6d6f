"""The examples run, on small data and small models."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.docs.pages import ROOT
from tests.small_models import SMALL, random_params
from vit_jax.__main__ import main
from vit_jax.models.config import ModelConfig
from vit_jax.plain import plain
from vit_jax.weights.files import write_weights

TINY = [
    *("--config.model.name=ViT-mu/8", "--config.model.depth=1", "--config.model.image_size=16"),
    "--config.optimizer.warmup_steps=0",
    *("--config.total_steps=2", "--config.data.workers=0", "--config.data.batch_size=8"),
]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scores(workdir: Path) -> dict[str, float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {key: value for line in lines for key, value in json.loads(line).items()}


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 16), ("test", 6)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 16, 16, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 3
    np.savez(tmp_path / "images.npz", **arrays)
    config = f"{ROOT}/examples/own_source.py:{tmp_path}/images.npz"
    options = [*TINY, "--config.epochs=none"]
    assert not main(["train", f"--config={config}", f"--workdir={tmp_path}/run", *options])
    assert scores(tmp_path / "run")["test/examples"] == 6


def test_a_score_of_ones_own(tmp_path: Path) -> None:
    config = f"{ROOT}/examples/own_score.py"
    assert not main(["train", f"--config={config}", f"--workdir={tmp_path}/run", *TINY])
    found = scores(tmp_path / "run")
    # The digits' classes are about equally common.
    assert found["balanced/balanced_top1"] == pytest.approx(found["test/top1"], abs=0.05)


def test_a_loss_of_ones_own(tmp_path: Path) -> None:
    config, flags = f"{ROOT}/examples/own_objective.py", [*TINY, "--config.log_every=1"]
    assert not main(["train", f"--config={config}", f"--workdir={tmp_path}/run", *flags])
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    # The head starts at zero, so each of ten classes has a share of 0.1.
    expected = (1 - 0.1) ** 2 * -np.log(0.1)
    assert json.loads(lines[0])["train/loss"] == pytest.approx(expected, rel=1e-5)


def test_the_example_of_serving_shows_names_as_the_commands_do() -> None:
    example = load("run_exported")
    names = [
        "Löwe 獅子 🦁",
        "a\x1b[2J",
        "\u202ecod",
        "a\nb\\",
        "\u2066\u2069\ufeff\u2028",
        "\udcff",
    ]
    assert list(map(example.plain, names)) == list(map(plain, names))


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    for label, color in (("dark", 0), ("light", 255)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(4):
            shade = abs(color - 10 * number)
            Image.new("RGB", (20, 20), (shade,) * 3).save(
                tmp_path / "photos" / label / f"{number}.png"
            )
    write_weights(tmp_path / "weights.npz", random_params(SMALL), SMALL)
    example = load("fine_tune")
    weights, photos = f"{tmp_path}/weights.npz", f"{tmp_path}/photos"
    assert example.main(weights, photos, steps=20, batch_size=8) < np.log(2)


def test_the_trainer_on_photographs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, color in (("dark", 40), ("light", 215)):
        for split, count in (("train", 8), ("test", 2)):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(color - 40, color + 40, (20, 24, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / f"photos/{split}/{label}/{number}.png")
    weights = tmp_path / "weights.npz"
    model = ModelConfig("ViT-mu/8", image_size=16, num_classes=5).completed()
    write_weights(weights, random_params(model), model)
    example = load("train_photos")
    sizes = {"epochs": 4, "batch_size": 8, "workers": 0}
    top1 = example.main(str(weights), f"{tmp_path}/photos", f"{tmp_path}/run", **sizes)
    assert 0 <= top1 <= 1
    assert scores(tmp_path / "run")["test/examples"] == 4
