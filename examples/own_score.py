"""A config with an evaluator of your own: the mean of the accuracies of all classes.

python -m vit_jax train --config=examples/own_score.py --workdir=runs/own_score

Top-1 counts each image once, so common classes dominate it. Here each class counts once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
from ml_collections import ConfigDict

from vit_jax.config import load_config
from vit_jax.data.sources.records import Source
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import Opener
from vit_jax.evaluation.evaluator import Scores
from vit_jax.inference.requests import Answer, Request


@EvalConfig.kinds.register("balanced")
@dataclass(frozen=True)
class BalancedConfig(EvalConfig):
    """`--config.evals.NAME.kind=balanced` asks for it."""

    def make(self, opener: Opener) -> "Balanced":
        """Opens the data."""
        return Balanced(opener.source(self.split, self.dataset))


class Balanced:
    """Asks for one row an image, in record order, and turns the rows into a score."""

    score_names = ("balanced_top1",)
    lower_is_better = frozenset[str]()

    def __init__(self, source: Source) -> None:
        self.requests = {"test": Request(source, rows=self.rows)}

    @staticmethod
    def rows(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """On the devices: whether each image is classified correctly, and its label."""
        right = batch["logits"].argmax(axis=-1) == batch["labels"]
        return {"right": right, "label": batch["labels"]}

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """On process 0: NumPy arrays of all images that can be read."""
        right, labels = answers["test"].rows["right"], answers["test"].rows["label"]
        value = float(np.mean([right[labels == each].mean() for each in np.unique(labels)]))
        return Scores({"balanced_top1": value}, f"balanced top-1 {value:.2%}")


def get_config(argument: str | None = None) -> ConfigDict:
    config = load_config("configs/quickstart.py")
    config["evals"]["balanced"] = {"kind": "balanced", "split": "test", "every_steps": 500}
    return ConfigDict(config)
