"""Mean average precision: how well each class ranks its images above all others."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.evaluation.class_map import ClassMap
from vit_jax.evaluation.classification import ClassificationConfig
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import Opener
from vit_jax.evaluation.evaluator import Evaluator, Scores
from vit_jax.inference.requests import Answer, Arrays, Request
from vit_jax.losses import Loss

# More classes than a person reads line by line.
_SHOWN_AT_MOST = 20


@EvalConfig.kinds.register("mean_average_precision")
@dataclass(frozen=True)
class MeanAveragePrecisionConfig(ClassificationConfig):
    """Mean average precision (mAP) over the classes, for images with any number of labels."""

    def make(self, opener: Opener) -> Evaluator:
        """Opens the data and matches its classes with the model's."""
        source, classes = self.open(opener)
        names = source.class_names or opener.context.class_names
        num_classes = opener.model.num_classes or 0
        return MeanAveragePrecision(source, classes, names, opener.context.loss, num_classes)


class MeanAveragePrecision:
    """The evaluator of one source.

    Its scores are `mean_average_precision`, `average_precision/NAME` of each class of the data, and
    `examples`. Average precision is scikit-learn's, the sum of (R_n - R_{n-1}) P_n over thresholds
    without interpolation. Classes without images are left out of the mean, and theirs is NaN. An
    image without labels counts against each class where images have any number of labels; where
    they have one each, it is not counted.

    Args:
      classes: what the source's labels stand for; None is the numbers of the logits.
      names: of the source's classes, or of the model's where `classes` is None.
      num_classes: number of the model's logits.
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        source: Source,
        classes: ClassMap | None,
        names: Sequence[str] | None,
        loss: Loss,
        num_classes: int,
    ):
        self.requests = {"test": Request(source, rows=self._rank)}
        self._source, self._classes, self._loss = source, classes, loss
        labels = range(num_classes) if classes is None else range(len(classes.labels))
        # By label as `ClassMap.apply` numbers it.
        self._names: dict[int, str] = {}
        counts = Counter(names or ())
        for label in labels:
            own = label if classes is None else classes.competing(label)
            if own >= 0:
                name = names[label] if names and label < len(names) else str(label)
                # Two of ImageNet's classes are both called crane.
                self._names[own] = name if counts[name] < 2 else f"{name} ({label})"
        self.score_names = (
            "mean_average_precision",
            *(f"average_precision/{name}" for name in self._names.values()),
            "examples",
        )

    def _rank(self, batch: Arrays) -> Arrays:
        logits, labels = batch["logits"], batch["labels"]
        if self._classes is not None:
            logits, labels = self._classes.apply(logits, labels)
        logits = logits.astype(jnp.float32)
        # The sigmoid changes no order, and many classes may have one that rounds to 1.
        values = logits if self._loss == "sigmoid" else jax.nn.log_softmax(logits)
        own = jnp.array(list(self._names))
        right = (labels.reshape(len(labels), -1)[:, :, None] == own).any(axis=1)
        return {"values": values[:, own], "right": right}

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """See the class."""
        from sklearn.metrics import average_precision_score

        values, right = (answers["test"].rows[name] for name in ("values", "right"))
        if self._source.max_labels is None:
            labelled = right.any(axis=1)
            values, right = values[labelled], right[labelled]
        if not right.any():
            raise UserError(f"{self._source.name}: no image can be read and has a label")
        if broken := int((~np.isfinite(values)).any(axis=1).sum()):
            raise UserError(
                f"{self._source.name}: the model's scores are not finite for {broken:,} of "
                f"{len(values):,} images; check the weights"
            )
        each = {
            name: float(average_precision_score(right[:, column], values[:, column]))
            if right[:, column].any()
            else float("nan")
            for column, name in enumerate(self._names.values())
        }
        found = {name: value for name, value in each.items() if not math.isnan(value)}
        mean = float(np.mean(list(found.values())))
        over = "" if self._classes is None else self._classes.scope
        line = (
            f"mean average precision {mean:.2%} over {len(found):,} classes on {len(values):,} "
            f"examples{over}{self._table(found, right)}"
        )
        scores = {f"average_precision/{name}": value for name, value in each.items()}
        return Scores(
            {"mean_average_precision": mean, **scores, "examples": float(len(values))}, line
        )

    def _table(self, found: Mapping[str, float], right: np.ndarray) -> str:
        counts = dict(zip(self._names.values(), right.sum(axis=0).tolist(), strict=True))
        names = list(found)
        if len(names) > _SHOWN_AT_MOST:
            names = sorted(names, key=lambda name: found[name])[:_SHOWN_AT_MOST]
        width = max(map(len, [*names, "class"]))
        lines = [f"{'class':<{width}}  average precision  examples"]
        lines += [f"{name:<{width}}  {found[name]:17.4f}  {counts[name]:8,}" for name in names]
        if len(names) < len(found):
            lines.append(f"(the {len(names)} of {len(found):,} classes with the lowest)")
        return "".join(f"\n  {line}" for line in lines)
