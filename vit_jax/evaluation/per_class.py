"""Precision, recall and F1 of each class, balanced accuracy, calibration, and their doubt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.evaluation.class_map import ClassMap
from vit_jax.evaluation.classification import ClassificationConfig
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import Opener
from vit_jax.evaluation.evaluator import Evaluator, Scores
from vit_jax.evaluation.scores import PerClass, accuracy_interval, calibration, per_class
from vit_jax.inference.requests import Answer, Arrays, Request
from vit_jax.losses import Loss

# More classes than a person reads line by line.
_SHOWN_AT_MOST = 20


@EvalConfig.kinds.register("per_class")
@dataclass(frozen=True)
class PerClassConfig(ClassificationConfig):
    """Precision, recall and F1 of each class, balanced accuracy and calibration."""

    def make(self, opener: Opener) -> Evaluator:
        """Opens the data and matches its classes with the model's."""
        source, classes = self.open(opener)
        if source.max_labels is not None:
            raise UserError(
                f"evaluation {opener.name}: kind=per_class needs one label a record, and records "
                f"of {source.name} have several; use kind=classification"
            )
        names = source.class_names or opener.context.class_names
        return PerClassEvaluator(source, classes, names, opener.context.loss)


class PerClassEvaluator:
    """The evaluator of one source.

    Its rows are `label`, `predicted`, and the probabilities `confidence` of the predicted class and
    `share_of_label` of the right one. Its scores are `top1` with Wilson's interval of 95 %
    (`top1_low`, `top1_high`), `balanced_accuracy`, `macro_f1`, `calibration_error` (15 bins) and
    `examples`; and `precision/NAME`, `recall/NAME` and `f1/NAME` of each class. Classes without
    examples are left out of the means, and theirs are NaN.

    Args:
      classes: what the source's labels stand for; None is the numbers of the logits.
      names: of the source's classes, or of the model's where `classes` is None.
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset({"calibration_error"})

    def __init__(
        self, source: Source, classes: ClassMap | None, names: Sequence[str] | None, loss: Loss
    ):
        self.requests = {"test": Request(source, rows=self._judge)}
        self._source, self._classes, self._loss = source, classes, loss
        # By label as `ClassMap.apply` numbers it.
        self._names: dict[int, str] = {}
        for label, name in enumerate(names or ()):
            own = label if classes is None else classes.competing(label)
            if own >= 0:
                self._names[own] = name
        self.score_names = (
            "top1",
            "top1_low",
            "top1_high",
            "balanced_accuracy",
            "macro_f1",
            "calibration_error",
            "examples",
            *(f"{s}/{n}" for n in self._names.values() for s in ("precision", "recall", "f1")),
        )

    def _judge(self, batch: Arrays) -> Arrays:
        logits, labels = batch["logits"], batch["labels"]
        if self._classes is not None:
            logits, labels = self._classes.apply(logits, labels)
        logits = logits.astype(jnp.float32)
        shares = jax.nn.sigmoid if self._loss == "sigmoid" else jax.nn.softmax
        predicted = logits.argmax(axis=-1)

        def share_of(classes: Array) -> Array:
            return jnp.take_along_axis(shares(logits), classes[:, None], axis=-1)[:, 0]

        return {
            "label": labels,
            "predicted": predicted,
            "confidence": share_of(predicted),
            "share_of_label": share_of(jnp.maximum(labels, 0)),
        }

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """See the class."""
        rows = answers["test"].rows
        counted = rows["label"] >= 0
        if not counted.any():
            raise UserError(f"{self._source.name}: no image can be read and has a label")
        label, predicted, confidence = (
            rows[name][counted] for name in ("label", "predicted", "confidence")
        )
        right = label == predicted
        each = per_class(label, predicted)
        low, high = accuracy_interval(int(right.sum()), len(right))
        values = {
            "top1": float(right.mean()),
            "top1_low": low,
            "top1_high": high,
            "balanced_accuracy": each.balanced_accuracy,
            "macro_f1": each.macro_f1,
            "calibration_error": calibration(confidence, right).error,
            "examples": float(len(right)),
        }
        line = (
            f"top-1 {values['top1']:.2%} ({low:.2%} to {high:.2%}), balanced accuracy "
            f"{each.balanced_accuracy:.2%}, macro F1 {each.macro_f1:.4f}, calibration error "
            f"{values['calibration_error']:.4f} on {len(right):,} examples"
        )
        over = "" if self._classes is None else self._classes.scope
        return Scores(values | self._of_classes(each), f"{line}{over}{self._table(each)}")

    def _of_classes(self, each: PerClass) -> dict[str, float]:
        values = {name: float("nan") for name in self.score_names if "/" in name}
        for row, label in enumerate(each.classes.tolist()):
            for score in ("precision", "recall", "f1"):
                values[f"{score}/{self.name(label)}"] = float(getattr(each, score)[row])
        return values

    def _table(self, each: PerClass) -> str:
        order = np.arange(len(each.classes))
        if len(order) > _SHOWN_AT_MOST:
            order = np.argsort(each.f1, kind="stable")[:_SHOWN_AT_MOST]
        names = [self.name(int(each.classes[row])) for row in order]
        width = max(map(len, [*names, "class"]))
        lines = [f"{'class':<{width}}  precision   recall       F1  examples"]
        for name, row in zip(names, order, strict=True):
            lines.append(
                f"{name:<{width}}  {each.precision[row]:9.4f}  {each.recall[row]:7.4f}  "
                f"{each.f1[row]:7.4f}  {each.examples[row]:8,}"
            )
        if len(names) < len(each.classes):
            lines.append(f"(the {len(names)} of {len(each.classes):,} classes with the lowest F1)")
        return "".join(f"\n  {line}" for line in lines)

    def name(self, label: int) -> str:
        """The name of a class, by its label or prediction in the rows; its number if unnamed."""
        return self._names.get(label, str(label))
