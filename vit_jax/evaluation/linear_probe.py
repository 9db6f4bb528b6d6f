"""A linear probe: logistic regression on frozen features."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from vit_jax.errors import UserError
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import Opener
from vit_jax.evaluation.evaluator import Scores
from vit_jax.evaluation.frozen_features import FrozenConfig, FrozenFeatures
from vit_jax.evaluation.scores import accuracy_interval
from vit_jax.inference.requests import Answer

_log = logging.getLogger(__name__)

# Inverse strengths of the l2 penalty on standardised features, strongest first.
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 5


class Probe(NamedTuple):
    """A linear classifier on features as they are: logits = features @ kernel + bias.

    Attributes:
      kernel: float32 [features, classes].
      bias: float32 [classes].
      inverse_penalty: the chosen one of `INVERSE_PENALTIES`.
    """

    kernel: np.ndarray
    bias: np.ndarray
    inverse_penalty: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """[rows, features] -> [rows, classes]."""
        return features @ self.kernel + self.bias


def fit_probe(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    seed: int = 0,
    *,
    balanced: bool = False,
) -> Probe:
    """Fits multinomial logistic regression on standardised features.

    Five-fold cross-validation chooses the strength of the l2 penalty from `INVERSE_PENALTIES`
    (scikit-learn's `C`): the value with the highest accuracy, and in a tie the lowest. If a class
    has one example only, which cannot be split, `C` is 1e-2.

    Args:
      features: [rows, features].
      labels: int [rows], in [0, num_classes). Classes without rows get a bias of -100.
      balanced: whether all classes count alike, in the fit (scikit-learn's
        `class_weight="balanced"`) and in the accuracy that chooses, however many rows they have.

    Raises:
      UserError: there are fewer than two classes.
    """
    # Runs that fit no probe need not wait for these.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    present, counts = np.unique(labels, return_counts=True)
    if len(present) < 2:
        raise UserError("a probe needs labelled images of at least two classes")
    weights = "balanced" if balanced else None
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight=weights))
    key, chosen = "logisticregression__C", 1e-2
    folds = min(_FOLDS, int(counts.min()))
    with warnings.catch_warnings():
        # The weakest penalties may need more iterations, and are rarely chosen.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if folds > 1:
            split = StratifiedKFold(folds, shuffle=True, random_state=seed)
            scoring = "balanced_accuracy" if balanced else "accuracy"
            grid = {key: INVERSE_PENALTIES}
            search = GridSearchCV(model, grid, scoring=scoring, cv=split, refit=False)
            chosen = float(search.fit(features, labels).best_params_[key])
        model.set_params(**{key: chosen}).fit(features, labels)
    scaler, regression = model[0], model[1]
    coefficients, intercept = regression.coef_, regression.intercept_
    if len(present) == 2:  # scikit-learn has one logit for two classes.
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    coefficients = coefficients / scaler.scale_
    kernel = np.zeros((features.shape[1], num_classes), np.float32)
    bias = np.full(num_classes, -100.0, np.float32)
    kernel[:, present] = coefficients.T
    bias[present] = intercept - coefficients @ scaler.mean_
    return Probe(kernel, bias, chosen)


@EvalConfig.kinds.register("linear_probe")
@dataclass(frozen=True)
class LinearProbeConfig(FrozenConfig):
    """Top-1 of a logistic regression on frozen features."""

    def make(self, opener: Opener) -> "LinearProbe":
        """Opens the data."""
        return LinearProbe(self.open(opener))


class LinearProbe:
    """The evaluator of two sources with the same classes."""

    score_names = ("top1", "top1_low", "top1_high", "inverse_penalty", "examples")
    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, data: FrozenFeatures):
        self.requests, self._data = data.requests, data

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """Top-1 with Wilson's interval of 95 %, the chosen penalty, and the number of examples."""
        train, test = self._data.labelled(answers)
        num_classes = int(max(train.labels.max(initial=0), test.labels.max())) + 1
        probe = fit_probe(train.features, train.labels, num_classes)
        right = probe.logits(test.features).argmax(axis=1) == test.labels
        low, high = accuracy_interval(int(right.sum()), len(right))
        values = {
            "top1": float(right.mean()),
            "top1_low": low,
            "top1_high": high,
            "inverse_penalty": probe.inverse_penalty,
            "examples": float(len(right)),
        }
        line = (
            f"linear probe on {len(train.labels):,} of {self._data.train.name}: top-1 "
            f"{values['top1']:.2%} ({low:.2%} to {high:.2%}) on {len(right):,} examples"
        )
        return Scores(values, line)
