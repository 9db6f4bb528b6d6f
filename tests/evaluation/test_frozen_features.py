"""Evaluations of frozen features share passes, and give the same on every topology."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vit_jax
from tests.eight_devices import EightDevices
from tests.programs.frozen_scores import TEST, TRAIN, score
from tests.real_processes import TWO_BY_FOUR, finish, start_on
from vit_jax.data.loader import Loader
from vit_jax.data.sources.open import open_source
from vit_jax.inference import passes
from vit_jax.inference.features import features_of_source
from vit_jax.models.functional import model_params
from vit_jax.weights.files import write_weights


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An untrained model and where data lie."""
    directory = tmp_path_factory.mktemp("frozen")
    model = vit_jax.create_model("ViT-Ti/4", image_size=8, num_classes=2, depth=2, seed=0)
    write_weights(directory / "vit.npz", model_params(model), model.config)
    return directory, str(directory / "vit.npz"), str(directory / "data")


@pytest.fixture(scope="module")
def on_one(paths: Any) -> Any:
    """Scores and features on one device, and how many loaders were started for them."""
    directory, weights, data_dir = paths
    started = []

    class Counted(Loader):
        def __init__(self, *args: Any, **options: Any) -> None:
            started.append(self)
            super().__init__(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "Loader", Counted)
        scores = score(weights, data_dir, str(directory / "one.npz"))
    return scores, np.load(directory / "one.npz"), len(started)


def test_three_evaluations_run_over_each_source_once(on_one: Any, paths: Any) -> None:
    scores, features, loaders = on_one
    assert loaders == 2
    assert scores["few/examples"] == scores["near/examples"] == 70
    model = vit_jax.load_model(weights=paths[1])
    for role, split in {"train": TRAIN, "test": TEST}.items():
        expected = features_of_source(model, open_source("digits", split, data_dir=paths[2]))
        np.testing.assert_allclose(features[role], expected.features, atol=1e-5)


def same_as(on_one: Any, scores: Any, file: Path) -> None:
    assert scores == on_one[0]
    found = np.load(file)
    for role in ("train", "test"):
        np.testing.assert_allclose(found[role], on_one[1][role], atol=1e-5)


def test_eight_devices_give_the_same(on_one: Any, paths: Any, eight_devices: EightDevices) -> None:
    directory, weights, data_dir = paths
    scores = eight_devices.run(score, weights, data_dir, str(directory / "eight.npz"))
    same_as(on_one, scores, directory / "eight.npz")


@pytest.mark.slow
def test_two_processes_give_the_same(on_one: Any, paths: Any) -> None:
    directory, weights, data_dir = paths
    program = [sys.executable, "-m", "tests.programs.frozen_scores"]
    command = [*program, weights, data_dir, str(directory / "two.npz")]
    for output in finish(start_on(TWO_BY_FOUR, command)):
        same_as(on_one, json.loads(output.splitlines()[-1]), directory / "two.npz")
