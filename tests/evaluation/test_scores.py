"""Against values by hand and from the definitions' sources."""

import numpy as np
import pytest

from vit_jax.evaluation.scores import accuracy_interval, calibration, per_class

LABELS = np.array([0, 0, 0, 0, 2, 2, 5])
PREDICTED = np.array([0, 0, 0, 2, 2, 1, 0])


def test_each_class_by_hand() -> None:
    """Class 1 is predicted once and has no example; classes 3 and 4 do not occur at all."""
    found = per_class(LABELS, PREDICTED)
    assert found.classes.tolist() == [0, 2, 5]
    assert found.examples.tolist() == [4, 2, 1]
    assert found.precision.tolist() == [3 / 4, 1 / 2, 0]
    assert found.recall.tolist() == [3 / 4, 1 / 2, 0]
    assert found.f1.tolist() == [3 / 4, 1 / 2, 0]
    assert found.balanced_accuracy == pytest.approx(5 / 12)
    assert found.macro_f1 == pytest.approx(5 / 12)


@pytest.mark.parametrize(
    ("right", "examples", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_interval_is_wilsons(right: int, examples: int, low: float, high: float) -> None:
    assert accuracy_interval(right, examples) == pytest.approx((low, high), abs=5e-5)


def test_calibration_by_hand() -> None:
    """Two bins: (0, 0.5] and (0.5, 1]; gaps of 0.1 - 0.5 over two and 0.8 - 1 over three."""
    confidence = np.array([0.0, 0.2, 0.7, 0.8, 0.9])
    right = np.array([True, False, True, True, True])
    found = calibration(confidence, right, bins=2)
    assert found.examples.tolist() == [2, 3]
    np.testing.assert_allclose(found.confidence, [0.1, 0.8])
    np.testing.assert_allclose(found.accuracy, [0.5, 1.0])
    assert found.error == pytest.approx((2 * 0.4 + 3 * 0.2) / 5)


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    found = calibration(np.array([0.5, 1.0]), np.array([True, True]), bins=2)
    assert found.examples.tolist() == [1, 1]
    assert np.isnan(calibration(np.array([1.0]), np.array([True])).accuracy[:-1]).all()
