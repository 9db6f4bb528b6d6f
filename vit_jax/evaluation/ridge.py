"""Linear classifiers in closed form: ridge regression to {-1, 1} on standardised features.

As the paper's few-shot evaluation does it (section 4.1, in public code big_vision's `fewshot_lsr`).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

# A constant feature of this size serves as the bias: the penalty hardly holds it back.
_BIAS = 100.0
_LEAST_DEVIATION = 1e-5


class LinearClassifier(NamedTuple):
    """scores = features @ kernel + bias; the class is that with the highest score.

    Attributes:
      kernel: float64 [features, classes], for features as they are.
      bias: float64 [classes].
    """

    kernel: np.ndarray
    bias: np.ndarray

    def classes(self, features: np.ndarray) -> np.ndarray:
        """The classes of float64 [rows, features], int [rows]."""
        return (features @ self.kernel + self.bias).argmax(axis=1)


def fit(
    features: np.ndarray, labels: np.ndarray, num_classes: int, penalties: Sequence[float]
) -> Iterator[LinearClassifier]:
    """Fits a classifier for each of some l2 penalties.

    Features are standardised by their own means and deviations, plus 1e-5; a constant feature of
    100 is appended. The targets are 1 for the class and -1 for all others.

    Args:
      features: float [rows, features].
      labels: int [rows], in [0, num_classes).
      penalties: above 0.
    """
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    deviation = x.std(axis=0) + _LEAST_DEVIATION
    x = np.concatenate([(x - mean) / deviation, np.full((len(x), 1), _BIAS)], axis=1)
    y = 2.0 * (labels[:, None] == np.arange(num_classes)) - 1
    solve = wide if x.shape[0] < x.shape[1] else tall
    for weights in solve(x, y, penalties):
        kernel = weights[:-1] / deviation[:, None]
        yield LinearClassifier(kernel, _BIAS * weights[-1] - mean @ kernel)


def tall(x: np.ndarray, y: np.ndarray, penalties: Sequence[float]) -> Iterator[np.ndarray]:
    """(X^T X + l2 I)^-1 X^T Y for each penalty: a system of as many equations as features.

    Args:
      x: float64 [rows, features].
      y: float64 [rows, targets].
      penalties: l2, above 0.

    Yields:
      float64 [features, targets].
    """
    import scipy.linalg

    gram, right = x.T @ x, x.T @ y
    for l2 in penalties:
        yield scipy.linalg.solve(gram + l2 * np.eye(len(gram)), right, assume_a="pos")


def wide(x: np.ndarray, y: np.ndarray, penalties: Sequence[float]) -> Iterator[np.ndarray]:
    """X^T (X X^T + l2 I)^-1 Y, which equals `tall`: a system of as many equations as rows."""
    import scipy.linalg

    gram = x @ x.T
    for l2 in penalties:
        yield x.T @ scipy.linalg.solve(gram + l2 * np.eye(len(gram)), y, assume_a="pos")
