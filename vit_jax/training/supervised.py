"""The supervised objective: classes are learnt from labels, with flips, Mixup and CutMix."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from vit_jax.losses import Loss, cross_entropy
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params, apply_model
from vit_jax.models.placement import OneDevice, Placement
from vit_jax.parameters import Table
from vit_jax.preprocessing import normalize
from vit_jax.training.mix import apply_mix, draw_mix, random_flip
from vit_jax.training.objectives import (
    Batch,
    Examples,
    ObjectiveConfig,
    ObjectiveContext,
)


class Supervised:
    """Cross-entropy of the model's scores with the labels.

    With the softmax loss an example without a label does not count, since it has no target. The
    sigmoid loss takes an empty list of labels as an image of none of the classes.

    Args:
      model: with its preprocessing known.
      flip: mirrors each image left to right with probability 1/2.
      mixup: see `mix.draw_mix`; so is `cutmix`.
      class_weights: factor of the loss of an example of each class; mixed examples have the mean of
        both losses, each with its own factor. The mean over a batch divides by the number of
        examples, so that a rare class weighs more in the batches that it is in.
    """

    def __init__(
        self,
        model: ModelConfig,
        placement: Placement | None = None,
        *,
        loss: Loss = "softmax",
        label_smoothing: float = 0.0,
        flip: bool = False,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
    ):
        if model.preprocessing is None:
            raise ValueError("the model's preprocessing must be known")
        self.parameters: Table = {}
        self.fixed: Any = ()
        self.fixed_digest: str | None = None
        self._preprocessing, self._placement = model.preprocessing, placement or OneDevice()
        self._apply = apply_model(model)
        self._loss, self._label_smoothing = loss, label_smoothing
        self._flip, self._mixup, self._cutmix = flip, mixup, cutmix
        self._class_weights = class_weights

    @property
    def _mixes(self) -> bool:
        return self._mixup > 0 or self._cutmix > 0

    def init(self, key: Array) -> Params:
        """No parameters."""
        del key
        return {}

    def prepare(self, batch: Batch, keys: tuple[Array, Array]) -> Batch:
        """Flips images, leaves out what has no target, and draws how rows are mixed."""
        flip_key, mix_key = keys
        batch = batch | {"weights": self._counts(batch)}
        if self._flip:
            batch = batch | {"images": random_flip(flip_key, batch["images"])}
        if self._mixes:
            batch = draw_mix(mix_key, batch, mixup=self._mixup, cutmix=self._cutmix)
        return batch

    def losses(self, params: Params, fixed: Any, batch: Batch, key: Array) -> Examples:
        """Cross-entropy of each example, in nats."""
        del fixed
        images = normalize(self.images(batch), self._preprocessing)
        logits = self._apply(params, images, key=key, placement=self._placement)
        return Examples(self.label_losses(logits, batch), {}, batch["weights"])

    def images(self, batch: Batch) -> Array:
        """The images that the model sees, [rows, height, width, 3] in the range of uint8."""
        return apply_mix(batch) if self._mixes else batch["images"]

    def label_losses(self, logits: Array, batch: Batch) -> Array:
        """The loss of each example against its label or, mixed, against both of its labels."""
        losses = self._weighted(logits, batch["labels"])
        if not self._mixes:
            return losses
        partners = self._weighted(logits, batch["partner_labels"])
        return batch["share"] * losses + (1 - batch["share"]) * partners

    def _weighted(self, logits: Array, labels: Array) -> Array:
        losses = cross_entropy(logits, labels, self._loss, self._label_smoothing)
        if self._class_weights is None:
            return losses
        # A label of -1 takes any: such an example does not count.
        return losses * jnp.asarray(self._class_weights, jnp.float32)[labels]

    def _counts(self, batch: Batch) -> Array:
        """1 for each example that has an image and a target, otherwise 0."""
        labels, weights = batch["labels"], batch["weights"]
        if labels.ndim == 2 and self._loss == "sigmoid":
            return weights
        has_label = (labels.reshape(len(labels), -1) >= 0).any(axis=-1)
        return jnp.where(has_label, weights, 0)


@ObjectiveConfig.kinds.register("supervised")
@dataclass(frozen=True)
class SupervisedConfig(ObjectiveConfig):
    """Learns classes from labels, by the config's `loss`."""

    def make(self, context: ObjectiveContext) -> Supervised:
        """The objective, for one model on one mesh."""
        return Supervised(
            context.model,
            context.placement,
            loss=context.loss,
            label_smoothing=context.label_smoothing,
            flip=context.data.flip,
            mixup=context.data.mixup,
            cutmix=context.data.cutmix,
            class_weights=context.class_weights,
        )
