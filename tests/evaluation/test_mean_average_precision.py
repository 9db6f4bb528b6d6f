"""Mean average precision against scikit-learn and by hand."""

import math
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tests.evaluation.label_set_cases import judged
from tests.small_models import refusal
from vit_jax.evaluation.class_map import ClassMap
from vit_jax.evaluation.mean_average_precision import MeanAveragePrecision

NAMES = ("cat", "dog", "eel", "owl")


class Several(list[int]):
    name, class_names, max_labels = "photos", NAMES, 3


class Single(Several):
    max_labels: Any = None


def evaluator(source: Any, classes: ClassMap | None = None, loss: Any = "sigmoid") -> Any:
    return MeanAveragePrecision(source, classes, NAMES, loss, 4)


def sets(*labels: tuple[int, ...]) -> np.ndarray:
    """As a batch holds them, filled up with -1."""
    return np.array([[*each, *[-1] * (3 - len(each))] for each in labels])


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_it_is_scikit_learns(loss: str) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 4)).astype(np.float32)
    right = rng.random((50, 4)) < 0.3
    labels = sets(*(tuple(np.flatnonzero(row)[:3].tolist()) for row in right))
    right = (labels[:, :, None] == np.arange(4)).any(axis=1)
    shares = jax.nn.softmax(logits) if loss == "softmax" else jax.nn.sigmoid(logits)
    each = evaluator(Several(), loss=loss)
    found = judged(each, logits, labels)
    assert found.values.keys() == set(each.score_names)
    assert found.values["mean_average_precision"] == pytest.approx(
        average_precision_score(right, np.asarray(shares), average="macro")
    )
    own = average_precision_score(right, np.asarray(shares), average=None)
    assert [found.values[f"average_precision/{name}"] for name in NAMES] == pytest.approx(own)
    assert found.values["examples"] == 50  # Those without labels count against each class.


def test_by_hand() -> None:
    """Cats are at ranks 1 and 3 of 4, dogs at rank 2, and no image has an eel or an owl."""
    logits = np.array([[4, 0, 0, 0], [3, 9, 0, 0], [2, 8, 0, 0], [1, 1, 0, 0]], np.float32)
    found = judged(evaluator(Several()), logits, sets((0,), (), (0, 1), ())).values
    assert found["average_precision/cat"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found["average_precision/dog"] == pytest.approx(1 / 2)
    assert math.isnan(found["average_precision/eel"])
    assert found["mean_average_precision"] == pytest.approx((5 / 6 + 1 / 2) / 2)


def test_large_logits_keep_their_order() -> None:
    """The sigmoid of both is 1 in float32, so that probabilities would be a tie."""
    logits = np.array([[40, 0, 0, 0], [50, 0, 0, 0]], np.float32)
    found = judged(evaluator(Several()), logits, sets((), (0,)))
    assert found.values["average_precision/cat"] == 1
    assert "mean average precision 100.00% over 1 classes on 2 examples" in found.line


def test_one_label_each_and_classes_by_map() -> None:
    """The data's cat is the model's class 2, its dog 0; what has no label is not counted."""
    classes = ClassMap((2, 0, -1, -1), 4)
    logits = np.array([[0, 9, 2, 0], [1, 9, 0, 0], [0, 9, 5, 0]], np.float32)
    found = judged(evaluator(Single(), classes), logits, np.array([0, 1, -1]))
    assert found.values["examples"] == 2
    assert found.values["average_precision/cat"] == found.values["average_precision/dog"] == 1
    assert "average_precision/eel" not in found.values


def test_two_classes_of_one_name_are_two_classes() -> None:
    """As ImageNet's cranes, the bird and the machine."""
    each: Any = MeanAveragePrecision(Several(), None, ("crane", "eel", "crane"), "sigmoid", 3)
    logits = np.array([[2, 0, 0], [1, 1, 1], [0, 2, 2]], np.float32)
    found = judged(each, logits, sets((0,), (2,), (1,)))
    assert found.values.keys() == set(each.score_names)
    assert found.values["average_precision/crane (0)"] == 1
    assert found.values["average_precision/crane (2)"] == 1 / 2
    assert found.values["mean_average_precision"] == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_nothing_to_score_is_refused() -> None:
    logits = np.zeros((2, 4), np.float32)
    assert "has a label" in refusal(judged, evaluator(Several()), logits, sets((), ()))
    logits[1] = np.inf
    message = refusal(judged, evaluator(Several()), logits, sets((0,), (1,)))
    assert "scores are not finite for 1 of 2 images" in message
