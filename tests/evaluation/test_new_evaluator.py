"""A new kind of evaluation in one file: the nearest class mean over features, from two sources.

It knows nothing of processes, batches or devices. Training, `evaluate` and a mesh of eight devices
give what NumPy gives.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import vit_jax
from tests.real_processes import EIGHT, TWO_BY_FOUR, Topology, finish, start_on
from vit_jax.__main__ import main
from vit_jax.commands.processes import add_process_flags, fail_together, join
from vit_jax.data.images.decoding import decode
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Source
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import EvalContext, Opener
from vit_jax.evaluation.evaluator import Scores
from vit_jax.evaluation.weight_files import Scorer, open_scored
from vit_jax.inference.requests import Answer, Arrays, Request
from vit_jax.parallel.mesh import MeshConfig, make_mesh


@EvalConfig.kinds.register("nearest_mean")
@dataclass(frozen=True)
class NearestMeanConfig(EvalConfig):
    """The share of examples whose features are nearest to the mean of their class."""

    train_split: str = "train"
    """The examples whose features are averaged."""

    def make(self, opener: Opener) -> "NearestMean":
        train, test = (opener.source(s, self.dataset) for s in (self.train_split, self.split))
        return NearestMean(train, test)


class NearestMean:
    score_names = ("top1", "mean_distance")
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"mean_distance"})

    def __init__(self, train: Source, test: Source) -> None:
        self.requests = {
            role: Request(source, outputs=("features",), rows=features)
            for role, source in {"train": train, "test": test}.items()
        }

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        train, test = answers["train"].rows, answers["test"].rows
        values = nearest_mean(train["x"], train["y"], test["x"], test["y"])
        return Scores(values, f"nearest mean {values['top1']:.2%}")


def features(batch: Arrays) -> Arrays:
    return {"x": batch["features"], "y": batch["labels"]}


def nearest_mean(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> Any:
    means = np.stack([x[y == label].mean(axis=0, dtype=np.float64) for label in np.unique(y)])
    distances = np.linalg.norm(test_x[:, None] - means, axis=-1)
    found = distances.argmin(axis=1)
    return {
        "top1": float((found == test_y).mean()),
        "mean_distance": float(distances.min(1).mean()),
    }


TRAIN, TEST = "train[:150]", "test[:70]"


def oracle(weights: Path, data_dir: Path) -> dict[str, float]:
    """The same from the model's own forward pass, one image at a time through `preprocess`."""
    model = vit_jax.load_model(weights=weights)
    found = []
    for split in (TRAIN, TEST):
        source = open_source("digits", split, data_dir=str(data_dir))
        records = [source[i] for i in range(len(source))]
        images = vit_jax.preprocess([decode(record.image) for record in records], model)
        found += [np.asarray(model(images, capture=("features",))[1]["features"])]
        found += [np.array([record.label for record in records])]
    return nearest_mean(*found)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that evaluates in this way and stops at its best distance."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    changes = {
        "data.data_dir": data_dir,
        "data.batch_size": 64,
        "total_steps": 4,
        "optimizer.warmup_steps": 1,
        "model.depth": 1,
        "evals.means.kind": "nearest_mean",
        "evals.means.train_split": TRAIN,
        "evals.means.split": TEST,
        "evals.means.every_steps": 2,
        "evals.means.batch_size": 48,
        "early_stop": {"eval": "means", "metric": "mean_distance"},
    }
    flags = [f"--config.{key}={value}" for key, value in changes.items()]
    config = "--config=configs/quickstart.py"
    assert main(["train", config, *flags, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="module")
def expected(finished: Path, data_dir: Path) -> dict[str, float]:
    return oracle(finished / "weights.npz", data_dir)


def test_a_run_scores_what_numpy_scores(finished: Path, expected: dict[str, float]) -> None:
    assert 0 < expected["top1"] < 1
    best = json.loads((finished / "weights.json").read_text())["step"]
    lines = map(json.loads, (finished / "metrics.jsonl").read_text().splitlines())
    (found,) = [x for x in lines if x["step"] == best and "means/top1" in x]
    assert found["means/top1"] == expected["top1"]
    assert found["means/mean_distance"] == pytest.approx(expected["mean_distance"], rel=1e-5)


def test_evaluate_scores_the_same(
    finished: Path, expected: dict[str, float], data_dir: Path, tmp_path: Path
) -> None:
    """Beside another evaluator, which shares the pass over the test images."""
    output = tmp_path / "scores.json"
    flags = [f"--split={TEST}", f"--evaluator.train_split={TRAIN}", f"--data_dir={data_dir}"]
    command = ["evaluate", f"--weights={finished}", "--dataset=digits", f"--output={output}"]
    assert main([*command, "--evaluator=nearest_mean,classification", *flags]) == 0
    means, classification = json.loads(output.read_text())
    assert means["evaluation"] == "nearest_mean"
    assert means["scores"] == pytest.approx(expected, rel=1e-5)
    assert classification["scores"]["examples"] == 70


@pytest.mark.parametrize("topology", [EIGHT, pytest.param(TWO_BY_FOUR, marks=pytest.mark.slow)])
def test_eight_devices_score_the_same(
    topology: Topology, finished: Path, expected: dict[str, float], data_dir: Path
) -> None:
    """This file's own main, as one process or two; the batches are not full."""
    command = [sys.executable, "-m", "tests.evaluation.test_new_evaluator"]
    for output in finish(start_on(topology, [*command, str(finished), str(data_dir)])):
        assert json.loads(output.splitlines()[-1]) == pytest.approx(expected, rel=1e-5)


def score_on_all_devices(weights: str, data_dir: str) -> dict[str, float]:
    mesh = make_mesh(MeshConfig())
    assert mesh.size == 8
    context = EvalContext(None, dataset="digits", data_dir=data_dir, batch_size=16)
    evals = {"means": NearestMeanConfig(TEST, train_split=TRAIN)}
    with Scorer() as scorer:
        found = scorer.score(open_scored(weights), evals, mesh=mesh, context=context)
        ((name, data, scores),) = found
    assert (name, data) == ("means", f"digits/{TRAIN}, digits/{TEST}")
    return scores.values


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("data_dir")
    add_process_flags(parser)
    given = parser.parse_args()
    with fail_together():
        join(given)
        print(json.dumps(score_on_all_devices(given.weights, given.data_dir)))
