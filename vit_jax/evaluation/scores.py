"""Scores of single-label classification that are more than a share: by class, with their doubt."""

from typing import NamedTuple

import numpy as np


class PerClass(NamedTuple):
    """Scores of each class, float64 in [0, 1]; 0 where nothing could be counted.

    Attributes:
      classes: the classes that have examples, ascending; the other arrays have their order.
      precision: of what is taken for the class, the share that is of it.
      recall: of the class, the share that is taken for it.
      f1: harmonic mean of the two.
      examples: of the class.
    """

    classes: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    examples: np.ndarray

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall over the classes."""
        return float(self.recall.mean())

    @property
    def macro_f1(self) -> float:
        """The mean F1 over the classes."""
        return float(self.f1.mean())


def per_class(labels: np.ndarray, predicted: np.ndarray) -> PerClass:
    """Scores each class that has examples.

    Args:
      labels, predicted: int [examples], at least one.
    """
    from sklearn.metrics import precision_recall_fscore_support

    classes = np.unique(labels)
    scores = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    return PerClass(classes, *map(np.asarray, scores))


def accuracy_interval(right: int, examples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share: (low, high), each in [0, 1].

    It takes the examples as drawn at random (E. B. Wilson, JASA 22, 1927).
    """
    from scipy.stats import binomtest

    interval = binomtest(right, examples).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


class Calibration(NamedTuple):
    """How confidence and accuracy compare, in bins of equal width of the confidence.

    Attributes:
      confidence, accuracy: float64 [bins], means over a bin; NaN where it is empty.
      examples: int64 [bins].
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    examples: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: the mean gap, weighted by examples (arXiv 1706.04599)."""
        gaps = np.nan_to_num(np.abs(self.confidence - self.accuracy))
        return float((gaps * self.examples).sum() / self.examples.sum())


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> Calibration:
    """Compares the confidence in the first class with how often it is right.

    Args:
      confidence: float [examples], the probability of the predicted class, in [0, 1].
      right: bool [examples].
      bins: (i / bins, (i + 1) / bins], the lowest with 0; 15 is the usual number.
    """
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    examples = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [
            np.bincount(index, values.astype(np.float64), bins) / examples
            for values in (confidence, right)
        ]
    return Calibration(means[0], means[1], examples)
