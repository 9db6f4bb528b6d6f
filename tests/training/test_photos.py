"""configs/photos.py from end to end: choices, the head, the end of the time, and resuming."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.small_models import SMALL, random_params, refusal
from vit_jax import load_model
from vit_jax.__main__ import main
from vit_jax.data.sources.open import open_source
from vit_jax.evaluation.linear_probe import fit_probe
from vit_jax.inference.features import features_of_source
from vit_jax.runs.metrics import read_metrics
from vit_jax.training import choices, choosing
from vit_jax.training.choices import complete
from vit_jax.training.deadline import Deadline
from vit_jax.training.measuring import Trial
from vit_jax.weights.files import write_weights

pytestmark = pytest.mark.usefixtures("shared_programs")

COLORS = ((220, 60, 60), (60, 220, 60), (60, 60, 220))


def make_folder(root: Path, counts: dict[str, tuple[int, int, int]]) -> Path:
    """Noisy colours: a folder of classes for each split, of so many images."""
    rng = np.random.default_rng(0)
    for split, numbers in counts.items():
        for label, number in enumerate(numbers):
            folder = root / split / f"c{label}"
            folder.mkdir(parents=True)
            for i in range(number):
                noisy = rng.normal(COLORS[label], 90, (20, 20, 3)).clip(0, 255)
                Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "mu.npz"
    write_weights(file, random_params(SMALL), SMALL)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"train": (24, 6, 6), "test": (4, 4, 4)}
    return make_folder(tmp_path_factory.mktemp("photos"), counts)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that takes no time: 2 s a step, so that 1 minute is 0.9 * (60 - 4 - 20) / 2 steps."""
    trial = Trial(compile_seconds=2.0, step_seconds=2.0, image_seconds=0.0, evaluated=12)
    monkeypatch.setattr(choosing, "measure", lambda _: trial)
    monkeypatch.setattr(choosing, "time", SimpleNamespace(monotonic=lambda: 0.0))


def photos(folder: Path, weights: Path, **more: Any) -> tuple[dict[str, Any], list[str]]:
    from vit_jax.config import load_config

    lines: list[str] = []
    overrides = [f"--config.{key}={value}" for key, value in more.items()]
    values = load_config(f"configs/photos.py:{folder},{weights}", overrides)
    return complete(values, max_minutes=1, say=lines.append), lines


@pytest.mark.usefixtures("_quick")
def test_each_choice_is_made_once_with_its_reason(folder: Path, weights: Path) -> None:
    values, lines = photos(folder, weights)
    assert "auto" not in json.dumps(values)
    assert (values["model"]["name"], values["model"]["depth"]) == ("ViT-mu/8", 2)
    assert values["data"]["batch_size"] == 32 <= 36
    assert values["data"]["sampling"] == "balanced"  # 24 : 6
    assert values["evals"]["test"]["split"] == "test"
    assert values["total_steps"] == int(0.9 * (60 - 2 * 2 - 20) / 2)
    assert values["early_stop"] is None
    keys = [line.partition("=")[0] for line in lines]
    assert len(keys) == len(set(keys)) and all(": " in line for line in lines)
    assert any(line.startswith("data.sampling=balanced: ") and "4.0" in line for line in lines)


@pytest.mark.usefixtures("_quick")
def test_what_a_person_sets_stays(folder: Path, weights: Path) -> None:
    more = {"data.batch_size": 8, "total_steps": 3, "data.sampling": "shuffled", "init_head": None}
    values, lines = photos(folder, weights, **more)
    assert (values["data"]["batch_size"], values["total_steps"]) == (8, 3)
    assert (values["data"]["sampling"], values["init_head"]) == ("shuffled", None)
    assert not [line for line in lines if line.startswith(("data.batch", "total", "init_head"))]


@pytest.mark.usefixtures("_quick")
def test_splits_and_few_images(tmp_path: Path, weights: Path) -> None:
    three = make_folder(tmp_path / "a", {s: (4, 4, 4) for s in ("train", "valid", "test")})
    values, _ = photos(three, weights)
    assert values["early_stop"]["eval"] == "val"
    assert values["evals"]["test"] == {"split": "test", "every_steps": None}
    assert values["evals"]["val"]["split"] == "valid"
    assert values["data"]["batch_size"] == 8  # The largest half of 32 that 12 images fill.
    assert values["optimizer"]["freeze"] == ["(?!head/).*"]  # 4 images a class.
    assert values["optimizer"]["layer_decay"] is None
    alone = make_folder(tmp_path / "b", {"train": (20, 20, 20)})
    values, _ = photos(alone, weights)
    assert values["data"]["dataset"] == str(alone / "train")
    held_out = open_source(values["data"]["dataset"], values["evals"]["test"]["split"])
    assert [int(r.label) for r in map(held_out.__getitem__, range(6))].count(0) == 2


def test_a_time_too_short_for_two_epochs_leaves_the_probe(
    folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 0.9 * (60 - 20) / 30 is one step; two epochs of 36 images are two of 32.
    trial = Trial(compile_seconds=0.0, step_seconds=30.0, image_seconds=0.0, evaluated=12)
    monkeypatch.setattr(choosing, "measure", lambda _: trial)
    values, lines = photos(folder, weights)
    assert values["total_steps"] == 1
    assert values["optimizer"]["freeze"] == ["(?!head/).*"]
    assert any("the probe is the result" in line for line in lines)
    kept, _ = photos(folder, weights, **{"optimizer.freeze": ()})
    assert kept["optimizer"]["freeze"] == []


def run(folder: Path, weights: Path, workdir: Path, *more: str) -> int:
    return main(
        [
            "train",
            f"--config=configs/photos.py:{folder},{weights}",
            f"--workdir={workdir}",
            "--config.callbacks=()",
            *more,
        ]
    )


def test_a_run_starts_from_the_probe_ends_in_time_and_resumes(
    folder: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    flags = ("--config.total_steps=4", "--config.optimizer.lr=0.01")
    monkeypatch.setattr(choosing, "measure", lambda _: pytest.fail("the steps are given"))
    assert run(folder, weights, tmp_path / "whole", *flags) == 0
    capfd.readouterr()

    # The time is up after the second step.
    with monkeypatch.context() as patch:
        patch.setattr(Deadline, "is_reached", lambda self, step: step == 2)
        assert run(folder, weights, tmp_path / "parts", "--max_minutes=3", *flags) == 0
    out = capfd.readouterr().out
    assert "the time is up after step 2 of 4" in out and "step 0: test top-1" in out
    parts = tmp_path / "parts"
    assert json.loads((parts / "weights.json").read_bytes())["step"] == 2
    # The same command, with the data and no weights at hand: choices and head come from the run.
    moved = weights.rename(weights.with_name("away.npz"))
    monkeypatch.setattr(choices, "Choices", lambda *_: pytest.fail("chosen again"))
    try:
        assert run(folder, weights, parts, "--max_minutes=3", *flags) == 0
    finally:
        moved.rename(weights)
    assert (parts / "weights.npz").read_bytes() == (tmp_path / "whole/weights.npz").read_bytes()
    assert "resuming after step 2 of 4" in capfd.readouterr().out
    losses = [
        {line["step"]: line["train/loss"] for line in read_metrics(d) if "train/loss" in line}
        for d in (parts, tmp_path / "whole")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_step_0_is_the_probe(folder: Path, weights: Path, tmp_path: Path) -> None:
    more = ("--config.total_steps=1", "--config.optimizer.lr=1e-12")
    assert run(folder, weights, tmp_path / "run", *more) == 0
    model = load_model(weights=str(weights), num_classes=0)
    train, test = (
        features_of_source(model, open_source(str(folder), s)) for s in ("train", "test")
    )
    probe = fit_probe(train.features, train.labels, 3, balanced=True)
    wanted = probe.logits(test.features).argmax(axis=1) == test.labels
    found = [line["test/top1"] for line in read_metrics(tmp_path / "run") if "test/top1" in line]
    assert found[0] == pytest.approx(wanted.mean())
    trained = load_model(weights=str(tmp_path / "run"))
    np.testing.assert_allclose(
        trained.head.kernel, probe.kernel, atol=2e-3 * abs(probe.kernel).max()
    )


def test_a_probe_needs_weights(tmp_path: Path) -> None:
    from vit_jax.config import load_config
    from vit_jax.schema import build
    from vit_jax.training.config import TrainConfig

    values = load_config("configs/quickstart.py", ["--config.init_head=probe"])
    assert "init_head would be ignored" in refusal(build, TrainConfig, values)
    shutil.rmtree(tmp_path)
