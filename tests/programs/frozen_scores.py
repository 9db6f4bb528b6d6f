"""Features and scores of evaluations on them, on all devices of one process or of several.

python -m tests.programs.frozen_scores WEIGHTS DATA_DIR OUTPUT.npz [process flags]
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np

from vit_jax.commands.processes import add_process_flags, fail_together, join
from vit_jax.evaluation.context import EvalContext, Opener
from vit_jax.evaluation.evaluator import Scores
from vit_jax.evaluation.few_shot import FewShotConfig
from vit_jax.evaluation.frozen_features import FrozenConfig, FrozenFeatures
from vit_jax.evaluation.k_nearest import KNearestConfig
from vit_jax.evaluation.weight_files import Scorer, open_scored
from vit_jax.inference.requests import Answer
from vit_jax.parallel.mesh import MeshConfig, make_mesh

TRAIN, TEST = "train[:330]", "test[:70]"


@dataclass(frozen=True)
class SavedConfig(FrozenConfig):
    """An evaluation that saves what the others see."""

    output: str = ""

    def make(self, opener: Opener) -> "Saved":
        return Saved(self.open(opener), self.output)


class Saved:
    score_names = ()
    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, data: FrozenFeatures, output: str) -> None:
        self.requests, self._data, self._output = data.requests, data, output

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        train, test = self._data.labelled(answers)
        np.savez(self._output, train=train.features, test=test.features)
        return Scores({}, "saved")


def score(weights: str, data_dir: str, output: str) -> dict[str, float]:
    """Scores on all devices; process 0 writes the features to `output`."""
    context = EvalContext(None, dataset="digits", data_dir=data_dir, batch_size=16)
    evals = {
        "few": FewShotConfig(TEST, train_split=TRAIN, shots=(1, 10), draws=2),
        "near": KNearestConfig(TEST, train_split=TRAIN, k=(10, 20)),
        "saved": SavedConfig(TEST, train_split=TRAIN, output=output),
    }
    mesh = make_mesh(MeshConfig())
    with Scorer() as scorer, jax.default_matmul_precision("highest"):
        found = scorer.score(open_scored(weights), evals, mesh=mesh, context=context)
        return {f"{name}/{k}": value for name, _, s in found for k, value in s.values.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for argument in ("weights", "data_dir", "output"):
        parser.add_argument(argument)
    add_process_flags(parser)
    given = parser.parse_args()
    with fail_together():
        join(given)
        print(json.dumps(score(given.weights, given.data_dir, given.output)))
