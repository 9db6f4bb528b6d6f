"""What evaluations on frozen features share: two splits, their features, and what is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import Opener
from vit_jax.inference.features import FeatureConfig
from vit_jax.inference.requests import Answer, Arrays, Request
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_model


class Labelled(NamedTuple):
    """The images of a source that can be read and have a label, in record order.

    Attributes:
      features: float32 [images, features], finite.
      labels: int32 [images].
      positions: int64 [images], of the records in the source.
    """

    features: np.ndarray
    labels: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class FrozenConfig(EvalConfig):
    """An evaluation of features that learns classes from some examples; it needs no head."""

    train_split: str = "train"
    """The examples to learn the classes from."""
    features: FeatureConfig = field(default_factory=FeatureConfig)

    def open(self, opener: Opener) -> "FrozenFeatures":
        """Opens the data.

        Raises:
          UserError: the data is missing or has several labels a record, or the model has no such
            features.
        """
        self.features.check(abstract_model(opener.model))
        if self.features.tokens == "patches":
            raise UserError(
                f"evaluation {opener.name}: kind={self.kind} takes one vector an image; set "
                f"{opener.option('features.tokens')}=mean"
            )
        train, test = (opener.source(s, self.dataset) for s in (self.train_split, self.split))
        if train.max_labels is not None:
            raise UserError(
                f"evaluation {opener.name}: kind={self.kind} needs one label a record, and "
                f"records of {train.name} have several"
            )
        return FrozenFeatures(train, test, self.features, opener.model)


class FrozenFeatures:
    """Two sources with the same classes, and what is asked of the passes over them."""

    def __init__(self, train: Source, test: Source, features: FeatureConfig, model: ModelConfig):
        def rows(batch: Arrays) -> Arrays:
            return {"features": features.select(batch, model), "labels": batch["labels"]}

        self.requests = {
            role: Request(source, outputs=features.outputs, rows=rows)
            for role, source in {"train": train, "test": test}.items()
        }
        self.train, self.test = train, test

    def labelled(self, answers: Mapping[str, Answer]) -> tuple[Labelled, Labelled]:
        """The images of `train` and of `test`.

        Raises:
          UserError: features are not finite, or `test` has no labelled image.
        """
        train, test = _labelled(answers["train"], self.train), _labelled(answers["test"], self.test)
        if not len(test.labels):
            raise UserError(f"{self.test.name}: no image can be read and has a label")
        return train, test


def _labelled(answer: Answer, source: Source) -> Labelled:
    labels = answer.rows["labels"]
    has_label = labels >= 0
    found = Labelled(
        answer.rows["features"][has_label], labels[has_label], answer.positions[has_label]
    )
    broken = np.flatnonzero(~np.isfinite(found.features).all(axis=1))
    if len(broken):
        first = source[int(found.positions[broken[0]])].name
        raise UserError(
            f"{source.name}: the features of {len(broken):,} of {len(found.labels):,} images are "
            f"not finite, the first of {first}; these weights cannot be scored: take others, or "
            "those of an earlier step"
        )
    return found


def as_typed(numbers: Sequence[int]) -> str:
    """Numbers as a user types them for a key that takes several: `1,5` or `5,`."""
    return ",".join(map(str, numbers)) + ("," if len(numbers) == 1 else "")
