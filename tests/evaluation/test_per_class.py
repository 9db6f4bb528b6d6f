"""The scores of classes, from a model's logits on images in memory."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from tests.evaluation.test_classification import COUNT, Images
from vit_jax.errors import UserError
from vit_jax.evaluation.class_map import ClassMap
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.per_class import PerClassEvaluator
from vit_jax.inference.requests import Answer

NAMES = ("cat", "dog", "eel", "owl", "yak")


def evaluator(
    names: Sequence[str] | None = NAMES, classes: ClassMap | None = None, loss: Any = "softmax"
) -> PerClassEvaluator:
    return PerClassEvaluator(Images(len(NAMES)), classes, names, loss)


def judged(each: PerClassEvaluator, logits: np.ndarray, labels: np.ndarray) -> Any:
    batch: Any = {"logits": logits, "labels": labels, "weights": np.ones(len(labels))}
    rows = {name: np.asarray(x) for name, x in each._judge(batch).items()}
    return each.scores({"test": Answer({}, rows, np.arange(len(labels)))})


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, COUNT)  # No yak.
    logits = rng.normal(size=(COUNT, len(NAMES))).astype(np.float32)
    logits[np.arange(COUNT), labels] += 1
    return logits, labels


def test_scores_are_scikit_learns(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = drawn
    found = judged(evaluator(), logits, labels)
    predicted = logits.argmax(axis=1)
    assert found.values.keys() == set(evaluator().score_names)
    assert found.values["top1"] == (labels == predicted).mean()
    assert found.values["balanced_accuracy"] == recall_score(
        labels, predicted, labels=[0, 1, 2, 3], average="macro"
    )
    own = {"labels": [0, 1, 2, 3], "zero_division": 0}
    assert found.values["macro_f1"] == pytest.approx(
        f1_score(labels, predicted, average="macro", **own)
    )
    for name, score in {"precision": precision_score, "recall": recall_score}.items():
        each = score(labels, predicted, average=None, **own)
        assert [found.values[f"{name}/{c}"] for c in NAMES[:4]] == pytest.approx(each.tolist())
    assert math.isnan(found.values["recall/yak"])
    assert "cat" in found.line and "yak" not in found.line


def test_examples_without_a_label_are_not_counted(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = drawn
    half = np.where(np.arange(COUNT) % 2, labels, -1)
    found = judged(evaluator(), logits, half)
    again = judged(evaluator(), logits[1::2], labels[1::2])
    np.testing.assert_equal(found.values, again.values)
    with pytest.raises(UserError, match="no image can be read and has a label"):
        judged(evaluator(), logits, np.full(COUNT, -1))


@pytest.mark.parametrize("own_only", [False, True])
def test_names_follow_the_data_where_classes_are_mapped(own_only: bool) -> None:
    """The data's classes are the model's 3, none and 1; the second is left out."""
    classes = ClassMap((3, -1, 1), 5, own_only=own_only)
    logits = np.zeros((3, 5), np.float32)
    logits[:, [0, 3]] = 2.0, 1.0  # Class 0 wins, but where only 1 and 3 compete.
    found = judged(evaluator(("owl", "ant", "dog"), classes), logits, np.array([0, 1, 2]))
    assert found.values["examples"] == 2
    assert found.values["recall/owl"] == float(own_only)
    assert found.values["recall/dog"] == 0
    assert "recall/ant" not in found.values


def test_confidence_follows_the_loss() -> None:
    """One class of two at 0: softmax says 1/2, a sigmoid of the logit 2 says 0.88."""
    logits, labels = np.array([[2.0, 2.0]], np.float32), np.array([0])
    softmax = judged(evaluator(NAMES[:2]), logits, labels).values["calibration_error"]
    sigmoid = judged(evaluator(NAMES[:2], loss="sigmoid"), logits, labels)
    assert softmax == pytest.approx(1 / 2)
    assert sigmoid.values["calibration_error"] == pytest.approx(1 / (1 + math.exp(2)), rel=1e-5)


def test_it_is_registered() -> None:
    assert {"classification", "per_class", "linear_probe"} <= set(EvalConfig.kinds.names())
