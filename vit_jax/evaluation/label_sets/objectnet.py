"""ObjectNet (Barbu et al., NeurIPS 2019): 313 classes of objects, 113 of which ImageNet shares.

Two rules are in use, and scores by one do not compare with those by the other.

- A, of its authors' template: the five best of all logits are taken, and each is replaced by its
  class of ObjectNet, if there is one. Top-1 is right if the first is the image's class, top-5 if
  any is.
- B, of imagenet-testbed: only the logits of classes that ObjectNet shares compete. An image is
  right if the best is one of the ImageNet classes that its own class is.

Both leave out images of the other 200 classes. The published pictures have a red border of 2
pixels, which is cut; then the short side becomes the model's input side, without a margin.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import Opener
from vit_jax.evaluation.evaluator import Evaluator, Scores
from vit_jax.evaluation.label_sets.classes import (
    count_not_finite,
    head_logits,
    read_list,
    require_finite,
    require_images_of,
    shortened,
)
from vit_jax.inference.requests import Answer, Arrays, Request
from vit_jax.losses import weighted_sum
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.weights.classes import imagenet_names, imagenet_synsets

BORDER = 2


class Mappings(NamedTuple):
    """The classes of ObjectNet's folders, and which of ImageNet's they are.

    Attributes:
      numbers: ObjectNet's number of each folder, from 0.
      shared: ObjectNet's number of each class of ImageNet that it shares (rule A).
      imagenet: by folder, the classes of ImageNet that it is; folders without are left out (B).
    """

    numbers: dict[str, int]
    shared: dict[int, int]
    imagenet: dict[str, tuple[int, ...]]


def read_mappings() -> Mappings:
    """The mappings that come with the package."""
    labels: dict[str, str] = json.loads(read_list("folder_to_objectnet_label.json"))
    order = {label: number for number, label in enumerate(sorted(set(labels.values())))}
    shared = json.loads(read_list("imagenet_pytorch_id_to_objectnet_id.json"))
    names: dict[str, str] = json.loads(read_list("objectnet_to_imagenet_1k.json"))
    known = imagenet_names()
    return Mappings(
        numbers={folder: order[label] for folder, label in labels.items()},
        shared={int(number): own for number, own in shared.items()},
        imagenet={
            folder: tuple(known.index(name) for name in names[label].split("; "))
            for folder, label in labels.items()
            if label in names
        },
    )


@EvalConfig.kinds.register("objectnet")
@dataclass(frozen=True)
class ObjectNetConfig(EvalConfig):
    """Top-1 and top-5 on ObjectNet by its authors' rule, and top-1 by imagenet-testbed's."""

    def make(self, opener: Opener) -> Evaluator:
        """Opens the images and finds the shared classes in the head."""
        where, known = f"evaluation {opener.name}", read_mappings()
        source = self._open(opener, known, where)
        logits = head_logits(opener, imagenet_synsets(), "ImageNet")
        objects = np.full(opener.model.num_classes or 0, -1, np.int32)
        for number, own in known.shared.items():
            objects[logits[number]] = own
        folders = source.class_names
        competing = sorted({number for own in known.imagenet.values() for number in own})
        right = [
            [number in known.imagenet.get(folder, ()) for number in competing] for folder in folders
        ]
        assert opener.model.preprocessing is not None
        return ObjectNet(
            Request(
                source,
                preprocessing=without_margin(opener.model.preprocessing),
                border=BORDER,
            ),
            labels=np.array(
                [known.numbers[name] if name in known.imagenet else -1 for name in folders],
                np.int32,
            ),
            objects=objects,
            competing=np.array([logits[number] for number in competing]),
            right=np.array(right),
            where=where,
        )

    def _open(self, opener: Opener, known: Mappings, where: str) -> Source:
        source = opener.source(self.split, self.dataset)
        strangers = [name for name in source.class_names if name not in known.numbers]
        if strangers:
            raise UserError(
                f"{where}: {source.name} has {len(strangers):,} folders that ObjectNet has not "
                f"({shortened(strangers)}); name the folder with alarm_clock, backpack, ..."
            )
        require_images_of(
            list(known.imagenet), source.class_names, source=source, where=where, title="ObjectNet"
        )
        return source


def without_margin(preprocessing: PreprocessingConfig) -> PreprocessingConfig:
    """The same, but that the image's short side becomes that of the model's input."""
    return dataclasses.replace(preprocessing, resize="short_side", short_side=None, crop_share=None)


class ObjectNet:
    """The evaluator of ObjectNet's images.

    Args:
      request: of the images; what to count is added.
      labels: int [folders], ObjectNet's number of each folder, or -1 for one that is left out.
      objects: int [logits], ObjectNet's number of each logit, or -1.
      competing: int [shared], the logits that compete by rule B.
      right: bool [folders, shared], which of these are right for a folder.
      where: the evaluation, for messages.
    """

    score_names = ("top1", "top5", "top1_rule_b", "examples")
    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        request: Request,
        *,
        labels: np.ndarray,
        objects: np.ndarray,
        competing: np.ndarray,
        right: np.ndarray,
        where: str,
    ):
        self.requests = {"test": dataclasses.replace(request, sums=self._count)}
        self._labels, self._objects = labels, objects
        self._competing, self._right, self._where = competing, right, where

    def _count(self, batch: Arrays) -> Arrays:
        logits, folders = batch["logits"], jnp.maximum(batch["labels"], 0)
        labels = jnp.asarray(self._labels)[folders]
        best = jax.lax.top_k(logits, 5)[1]
        hits = jnp.asarray(self._objects)[best] == labels[:, None]
        best_shared = logits[:, self._competing].argmax(axis=-1)
        values = {
            "top1": hits[:, 0],
            "top5": hits.any(axis=1),
            "top1_rule_b": jnp.asarray(self._right)[folders, best_shared],
        }
        # A record without a label is of no folder, although it was looked up as the first one.
        weights = batch["weights"] * (labels >= 0) * (batch["labels"] >= 0)
        sums = {k: weighted_sum(v.astype(jnp.float32), weights) for k, v in values.items()}
        return sums | {"examples": weights.sum(), "not_finite": count_not_finite(batch)}

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """`top1` and `top5` by rule A, `top1_rule_b` by rule B, number of `examples`."""
        sums = dict(answers["test"].sums)
        require_finite(sums.pop("not_finite"), self._where)
        examples = sums.pop("examples")
        if examples == 0:
            raise UserError(f"{self._where}: no image of a class that ImageNet shares can be read")
        values = {name: value / examples for name, value in sums.items()}
        line = (
            f"top-1 {values['top1']:.2%}, top-5 {values['top5']:.2%} by its authors' rule (A: over "
            f"all {len(self._objects):,} logits); top-1 {values['top1_rule_b']:.2%} by "
            f"imagenet-testbed's (B: over the {len(self._competing)} logits of shared classes) on "
            f"{examples:,.0f} examples"
        )
        return Scores(values | {"examples": examples}, line)
