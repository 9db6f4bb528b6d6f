"""Ridge regression in closed form, against big_vision's accuracies and scikit-learn's weights."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from vit_jax.evaluation.ridge import fit, tall, wide

PARITY = np.load(Path(__file__).parents[1] / "parity/fewshot.npz")
PENALTIES = {"2pow-10": 2.0**-10, "2pow0": 1.0, "2pow6": 2.0**6, "2pow10": 2.0**10}


# big_vision solves in float32, where rounding shifts eigenvalues by more than the least penalty.
# Two scores that are nearer than this may change places: of one example, in `tall` at 2^-10.
UNDECIDED = 2.5e-4


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_accuracies_are_big_visions(shape: str) -> None:
    x, y, test_x, test_y = (
        PARITY[f"{shape}/{name}"] for name in ("x_train", "y_train", "x_test", "y_test")
    )
    assert (len(x) < x.shape[1]) == (shape == "wide")
    fitted = fit(x, y, int(y.max()) + 1, list(PENALTIES.values()))
    undecided = {}
    for name, classifier in zip(PENALTIES, fitted, strict=True):
        predicted = classifier.classes(test_x.astype(np.float64))
        reference = round(float(PARITY[f"{shape}/accuracy_l2_{name}"]) * len(test_y))
        scores = np.sort(test_x.astype(np.float64) @ classifier.kernel + classifier.bias, axis=1)
        undecided[name] = int((scores[:, -1] - scores[:, -2] < UNDECIDED).sum())
        assert abs(int((predicted == test_y).sum()) - reference) <= undecided[name], name
    expected = {"tall": {"2pow-10": 1}, "wide": {}}[shape]
    assert {name: count for name, count in undecided.items() if count} == expected


@pytest.mark.parametrize("shape", [(30, 65), (150, 17), (65, 65)])
def test_both_forms_are_scikit_learns_ridge(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=shape), np.full((shape[0], 1), 100.0)], axis=1)
    y = np.where(rng.random((shape[0], 7)) < 0.2, 1.0, -1.0)
    penalties = list(PENALTIES.values())
    for l2, one, other in zip(penalties, tall(x, y, penalties), wide(x, y, penalties), strict=True):
        expected = Ridge(l2, fit_intercept=False, solver="svd").fit(x, y).coef_.T
        np.testing.assert_allclose(one, other, atol=1e-4)
        np.testing.assert_allclose(one, expected, atol=1e-4)
        np.testing.assert_allclose(other, expected, atol=1e-4)


@pytest.mark.parametrize("rows", [12, 200])
def test_features_are_standardised_and_the_bias_is_a_constant_of_100(rows: int) -> None:
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(rows, 20)) * np.geomspace(0.01, 100, 20) + 3).astype(np.float32)
    x[:, 5] = 2.0  # A feature without deviation tells nothing.
    y = rng.integers(0, 4, rows)
    (found,) = fit(x, y, 4, [2.0**10])
    wide_x = x.astype(np.float64)
    scaled = (wide_x - wide_x.mean(axis=0)) / (wide_x.std(axis=0) + 1e-5)
    scaled = np.concatenate([scaled, np.full((rows, 1), 100.0)], axis=1)
    targets = np.where(y[:, None] == np.arange(4), 1.0, -1.0)
    other = Ridge(2.0**10, fit_intercept=False, solver="svd").fit(scaled, targets)
    expected = other.predict(scaled)
    np.testing.assert_allclose(wide_x @ found.kernel + found.bias, expected, atol=1e-4)
    np.testing.assert_array_equal(found.classes(wide_x), expected.argmax(axis=1))
