"""Votes of the nearest neighbours, against scikit-learn's."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from vit_jax.evaluation import k_nearest
from vit_jax.evaluation.k_nearest import vote

K = (1, 10, 20, 100)


@pytest.mark.parametrize("cosines", [2**25, 1000])
def test_votes_are_scikit_learns_with_dinos_weights(
    cosines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With noise, so that the number of neighbours matters; all at once, or few at a time."""
    monkeypatch.setattr(k_nearest, "_COSINES", cosines)
    x, y = load_digits(return_X_y=True)
    x = (x + np.random.default_rng(0).normal(size=x.shape) * 8).astype(np.float32)
    found = vote(x[:400], y[:400], x[400:700], K)
    accuracies = set()
    for k in K:
        other = KNeighborsClassifier(
            k, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07)
        )
        expected = other.fit(x[:400], y[:400]).predict(x[400:700])
        np.testing.assert_array_equal(found[k], expected)
        accuracies.add((expected == y[400:700]).mean())
    assert len(accuracies) > 1


def test_a_near_neighbour_outvotes_two_far_ones() -> None:
    angles = np.radians([0, 60, 61, 90])
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # exp(1 / 0.07) is more than twice exp(0.5 / 0.07); lengths do not count.
    assert vote(train * [[1], [9], [9], [9]], np.array([2, 0, 0, 1]), train[:1], (3,))[3] == [2]
