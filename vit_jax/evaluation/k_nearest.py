"""A weighted vote of the k nearest neighbours on frozen features, as DINO's (arXiv 2104.14294)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vit_jax.data.sources.labels import labels_at_hand
from vit_jax.errors import UserError
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import Opener
from vit_jax.evaluation.evaluator import Scores
from vit_jax.evaluation.frozen_features import FrozenConfig, FrozenFeatures, as_typed
from vit_jax.inference.requests import Answer

_TEMPERATURE = 0.07
# Cosines that are held in memory at a time.
_COSINES = 2**25
_LEAST_NORM = 1e-12


@EvalConfig.kinds.register("k_nearest")
@dataclass(frozen=True)
class KNearestConfig(FrozenConfig):
    """Top-1 of a vote of the most similar training examples; nothing is fitted."""

    k: tuple[int, ...] = (10, 20, 100, 200)
    """How many neighbours vote; each number gives a score."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.k or min(self.k) < 1 or len(set(self.k)) < len(self.k):
            raise UserError(f"k={self.k} must be different numbers of at least 1")

    def make(self, opener: Opener) -> "KNearest":
        """Opens the data, and checks the number of examples where labels are at hand."""
        return KNearest(self.open(opener), self, opener)


class KNearest:
    """The evaluator of two sources with the same classes.

    Its scores are `top1_K_nearest` for K neighbours, and the number of test `examples`.
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, data: FrozenFeatures, config: KNearestConfig, opener: Opener):
        self.requests = data.requests
        self.score_names = (*(f"top1_{k}_nearest" for k in config.k), "examples")
        self._data, self._config, self._option = data, config, opener.option
        known = labels_at_hand(data.train)
        self._require(len(data.train) if known is None else int((known >= 0).sum()))

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """See the class.

        Raises:
          UserError: there are fewer examples than neighbours, or features are not finite.
        """
        train, test = self._data.labelled(answers)
        self._require(len(train.labels))
        predicted = vote(train.features, train.labels, test.features, self._config.k)
        top1 = {k: float((found == test.labels).mean()) for k, found in predicted.items()}
        values = {f"top1_{k}_nearest": share for k, share in top1.items()}
        parts = [f"{share:.2%} by {k}" for k, share in top1.items()]
        line = (
            f"nearest neighbours among {len(train.labels):,} of {self._data.train.name}: top-1 "
            f"{', '.join(parts)} on {len(test.labels):,} examples"
        )
        return Scores(values | {"examples": float(len(test.labels))}, line)

    def _require(self, examples: int) -> None:
        """Checks that there are as many examples as neighbours."""
        k = self._config.k
        if examples < max(k):
            fewer = [number for number in k if number <= examples] or [max(examples, 1)]
            raise UserError(
                f"{self._data.train.name} has {examples:,} labelled images, fewer than {max(k)} "
                f"neighbours; widen {self._option('train_split')}={self._config.train_split}, or "
                f"give {self._option('k')}={as_typed(fewer)}"
            )


def vote(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, neighbours: Sequence[int]
) -> dict[int, np.ndarray]:
    """The class for which the most similar examples vote, for each number of neighbours.

    A neighbour's vote for its class weighs exp(cosine / 0.07); of equal classes the first wins.

    Args:
      train: float [examples, features], at least as many as neighbours.
      labels: int [examples], from 0.
      test: float [rows, features].

    Returns:
      int [rows] for each number of neighbours.
    """
    train, test = _of_unit_length(train), _of_unit_length(test)
    most, size = max(neighbours), max(1, _COSINES // len(train))
    found: dict[int, list[np.ndarray]] = {k: [] for k in neighbours}
    for start in range(0, len(test), size):
        cosines = test[start : start + size] @ train.T
        nearest = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        weights = np.exp(np.take_along_axis(cosines, nearest, axis=1) / _TEMPERATURE)
        for k in neighbours:
            votes = np.zeros((len(nearest), int(labels.max()) + 1))
            rows = np.arange(len(nearest))[:, None]
            np.add.at(votes, (rows, labels[nearest[:, :k]]), weights[:, :k])
            found[k].append(votes.argmax(axis=1))
    return {k: np.concatenate(parts) for k, parts in found.items()}


def _of_unit_length(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), _LEAST_NORM)
