"""Principal components of the filters that embed patches (figure 7, left)."""

from typing import NamedTuple

import numpy as np

# As many as the figure shows.
FIGURE_7 = 28


class Components(NamedTuple):
    """Principal components, the one with the largest variance first.

    Attributes:
      filters: float64 [count, height, width, channels], each of length 1. The entry that is
        farthest from 0 is positive, since the sign of a component is arbitrary.
      explained: float64 [count]: each one's share of the variance over all components.
    """

    filters: np.ndarray
    explained: np.ndarray


def principal_filters(kernel: np.ndarray, count: int = FIGURE_7) -> Components:
    """The directions in which the filters of an embedding differ most.

    Args:
      kernel: [height, width, channels, width of the model]: a filter for each feature.
      count: components, at most as many as there are filters or entries of one.
    """
    *shape, features = kernel.shape
    filters = np.asarray(kernel, np.float64).reshape(-1, features).T
    _, scales, directions = np.linalg.svd(filters - filters.mean(axis=0), full_matrices=False)
    count = min(count, len(directions))
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    variance = scales**2
    shown = (directions * signs[:, None])[:count].reshape(count, *shape)
    return Components(shown, (variance / variance.sum())[:count])
