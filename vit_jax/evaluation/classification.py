"""Top-1, top-5 and loss over every labelled example of a data set."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import Array

from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.evaluation.class_map import ClassMap, match_classes
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import Opener
from vit_jax.evaluation.evaluator import Evaluator, Scores
from vit_jax.inference.requests import Answer, Arrays, Request
from vit_jax.losses import Loss, cross_entropy, weighted_sum

_log = logging.getLogger(__name__)


@EvalConfig.kinds.register("classification")
@dataclass(frozen=True)
class ClassificationConfig(EvalConfig):
    """Shares of examples whose class is the first, or among the first five, and the mean loss."""

    classes: Literal["all", "subset"] = "all"
    """`all` scores over all of the model's logits. `subset` scores over those of the data's
    classes alone."""
    class_map: str | None = None
    """A file that names the model's class for each of the data's classes whose name differs
    (`evaluation.class_map`)."""

    def make(self, opener: Opener) -> Evaluator:
        """Opens the data and matches its classes with the model's."""
        return Classification(*self.open(opener), opener.context.loss)

    def open(self, opener: Opener) -> tuple[Source, ClassMap | None]:
        """Opens the data set and matches its classes with the model's.

        Returns:
          The source and the class map; None if label i is logit i.

        Raises:
          UserError: the model has no head, the data is missing, or classes do not match.
        """
        if not opener.model.num_classes:
            raise UserError(
                f"evaluation {opener.name}: the model has no head, so it has no classes"
            )
        source = opener.source(self.split, self.dataset)
        classes = match_classes(
            source.class_names,
            opener.context.class_names,
            opener.model.num_classes,
            data=source.name,
            file=None if self.class_map is None else Path(self.class_map).expanduser(),
            option=opener.option("class_map"),
        )
        if classes is not None and self.classes == "subset":
            classes = classes.subset()
        if classes is not None and classes.how and jax.process_index() == 0:
            _log.info("%s: %s%s", source.name, classes.how, classes.scope)
        return source, classes


class Classification:
    """The evaluator of one source.

    An example with several labels counts as right if any of them is predicted. An example without
    labels has no right answer and is not counted, as is usual for ReaL labels (arXiv 2006.07159).

    Args:
      classes: what the source's labels stand for; None is the numbers of the logits.
    """

    score_names = ("top1", "top5", "loss", "examples")
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"loss"})

    def __init__(self, source: Source, classes: ClassMap | None, loss: Loss):
        self.requests = {"test": Request(source, sums=self._count)}
        self._source, self._classes, self._loss = source, classes, loss

    def _count(self, batch: Arrays) -> Arrays:
        logits, labels = batch["logits"], batch["labels"]
        if self._classes is not None:
            logits, labels = self._classes.apply(logits, labels)
        best = jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]
        sets = labels.reshape(len(best), -1)
        hits = (best[:, :, None] == sets[:, None]).any(axis=-1)
        losses = cross_entropy(logits, labels, self._loss, label_smoothing=0.0)
        values: dict[str, Array] = {"top1": hits[:, 0], "top5": hits.any(axis=1), "loss": losses}
        weights = batch["weights"] * (sets >= 0).any(axis=-1)
        sums = {k: weighted_sum(v.astype(jnp.float32), weights) for k, v in values.items()}
        return sums | {"examples": weights.sum()}

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """Shares `top1` and `top5`, mean `loss` in nats, number of `examples`."""
        sums = dict(answers["test"].sums)
        examples = sums.pop("examples")
        if examples == 0:
            raise UserError(f"{self._source.name}: no image can be read and has a label")
        values = {name: value / examples for name, value in sums.items()}
        line = (
            f"top-1 {values['top1']:.2%}, top-5 {values['top5']:.2%}, loss {values['loss']:.4f} on "
            f"{examples:,.0f} examples"
        )
        return Scores(values | {"examples": examples}, f"{line}{self.scope()}")

    def scope(self) -> str:
        """What the scores are over, to end the line with."""
        return "" if self._classes is None else self._classes.scope
