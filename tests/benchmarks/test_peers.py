"""The comparison with peers: equal work, and what is told of the times."""

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import card, first_hour, ours, plain, rounds
from benchmarks.peers.card import largest_batch
from benchmarks.peers.case import Case, model
from benchmarks.peers.rounds import Sample, agreement, cell, orders
from benchmarks.peers.worker import Failed, Timed
from tests.real_processes import run_program
from tests.test_imports import HEAVY
from vit_jax.data.config import DataConfig
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.training.config import TrainConfig
from vit_jax.training.program import make_program

CASE = Case("train", model("ViT-Ti/16", True, "float32"), 2)


@pytest.fixture(scope="module")
def our_losses() -> Any:
    return ours.make(CASE, CASE.params()).run(3)


def test_the_plain_step_has_our_losses(our_losses: Any) -> None:
    theirs = plain.make(CASE, CASE.params()).run(3)
    assert len(set(theirs)) == 3
    np.testing.assert_allclose(our_losses, theirs, rtol=1e-5)


def test_the_step_is_that_of_train(our_losses: Any) -> None:
    data = DataConfig("synthetic", batch_size=CASE.batch_size, flip=False)
    config = TrainConfig(CASE.config, data, ours.OPTIMIZER, total_steps=10_000)
    program = make_program(config, 10_000, make_mesh(MeshConfig()))
    images, labels = CASE.batch()
    batch = {"images": images, "labels": labels, "weights": np.ones(2, np.float32)}
    step, state = program.step(), program.start(CASE.params())
    losses = []
    for _ in range(3):
        state, metrics = step(state, batch, ())
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(our_losses, losses, rtol=1e-6)


def test_both_need_jax_flax_optax_and_numpy_alone() -> None:
    def loaded(*modules: str) -> set[str]:
        return set(json.loads(run_program("tests.programs.loaded", *modules))["loaded"])

    alone = loaded("jax", "flax", "optax", "flax.linen")
    more = loaded("benchmarks.peers.__main__", "benchmarks.peers.ours", "benchmarks.peers.plain")
    assert not (more - alone) & {*HEAVY, "etils", "fsspec", "google_crc32c", "tensorstore"}


def test_no_contender_always_follows_the_same() -> None:
    assert list(orders("ABC", 3)) == list("ABCCBAABC")


def test_a_cell_tells_the_lower_quartile_its_spread_and_the_ratio() -> None:
    sample = Sample([5, 1, 2, 3, 4])
    assert (sample.low, sample.spread) == (2, 1)
    assert cell(sample, Sample([4])) == "2.00 s +100 %, **0.50**"


def test_who_computes_something_else_is_found() -> None:
    words = "Ti/16 at 64, training step, batch 2: losses of the first three steps differ by at most"
    assert agreement(CASE, {"a": [2.0], "b": [2.0001]}).startswith(words)
    with pytest.raises(AssertionError, match="losses"):
        agreement(CASE, {"a": [2.0], "b": [2.01]})


@pytest.mark.parametrize(("most", "found"), [(300, 256), (1024, 1024), (1, 1), (0, None)])
def test_the_largest_batch_is_sought_by_halving(most: Any, found: Any) -> None:
    assert largest_batch(lambda size: size <= most, 1024) == found


class _Worker:
    """Takes a second for the first repetition and then 10 ms, or half of both."""

    def __init__(self, name: str):
        self._is_able = name != "ours, cuDNN"
        self._factor = 0.5 if name == "ours" else 1.0

    def start(self, case: Case, *, fresh: bool = False) -> Timed:
        if not self._is_able:
            raise Failed("no such kernel")
        return Timed(self._factor, 0.0, [1.0])

    def run(self, count: int) -> Timed:
        return Timed(self._factor * count / 100, self._factor * count / 100, [1.0] * count)

    def describe(self) -> Any:
        return "gpu", "NVIDIA H100 80GB HBM3", "jax"

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        pass


def test_the_table_of_a_first_hour_adds_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(rounds, "Worker", _Worker)
    lines: list[str] = []
    first_hour.table(["ours", "plain Flax"], 2, True, lines.append)
    row = "compiling and the first 100 steps | 0.995 s, **0.50** | 1.99 s, **1.00** |"
    assert any(line.endswith(row) for line in lines)
    # Two forwards and a step beside it.
    assert any("| 1.01 s, **0.50** | 2.02 s, **1.00** |" in line for line in lines)
    assert "| mean ratio of these four | **0.50** | **1.00** |\n" in lines


def test_the_table_of_a_card_has_speeds_and_shares_of_its_peak(monkeypatch: Any) -> None:
    monkeypatch.setattr(rounds, "Worker", _Worker)
    monkeypatch.setattr(card, "Worker", _Worker)
    lines: list[str] = []
    card.table(["ours", "plain Flax", "ours, cuDNN"], ["ViT-B/16"], 2, 10, False, lines.append)
    training = next(line for line in lines if "training step" in line)
    # 2,048 images in 10 ms, 6 x 17.6 billion multiply-adds each, at 989.5 TFLOP/s.
    share = 204_800 * 6 * 17.6e9 / 989.5e12
    speed, percent = training.split("|")[3].split(" img/s, ")
    assert speed.strip() == "204,800"
    assert float(percent.split(" %")[0]) == pytest.approx(100 * share, rel=0.01)
    assert "**2.00** | 204,800" in training and training.endswith("| does not run |")
    assert any("largest batch" in line and line.endswith("| 2048 | 2048 |  |") for line in lines)
