"""What all models have in common: how they are called, and the head."""

from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from vit_jax.errors import UserError
from vit_jax.losses import Loss
from vit_jax.models.config import ModelConfig
from vit_jax.models.placement import OneDevice, Placement
from vit_jax.parameters import Parameter, Table, dense, nested
from vit_jax.schema import nearest

_PATCH = ("height", "columns", "channels")
PATCH_EMBEDDING: Table = dense(_PATCH, ("width",), "stem")


def head(config: ModelConfig, features: str) -> dict[str, Parameter]:
    """Describes the head on an axis of this name; a model without classes has none."""
    return nested("head", dense((features,), ("classes",), "head")) if config.num_classes else {}


class Model(nnx.Module):
    """Images to class scores.

    State is parameters only.

    Attributes:
      captured: what `__call__` can return besides the logits, by name:
          `features`: what the head sees, [batch, features];
          `tokens`: the output of the blocks after their norm, [batch, T, width], class token first,
          registers last;
          `layers`: each block's output, [depth, batch, T, width];
          `attention`: each block's weights, float32 [depth, batch, heads, T, T].
      config: with nothing left open.
      class_names: of the head's classes, if known.
      loss: that the head was trained with, if known.
    """

    captured: tuple[str, ...] = ("features",)

    def __init__(self, config: ModelConfig):
        if config.num_classes is None:
            raise ValueError("num_classes must be known when a model is made")
        self.config = config.following()
        self.class_names: tuple[str, ...] | None = None
        self.loss: Loss | None = None

    def _add_head(self, features: int, rngs: nnx.Rngs) -> None:
        config = self.config
        if config.num_classes:
            # In float32: it costs little, and scores of many classes need the precision.
            self.head = nnx.Linear(
                features,
                config.num_classes,
                kernel_init=nnx.initializers.zeros,
                bias_init=nnx.initializers.constant(config.head_bias),
                rngs=rngs,
            )

    def __call__(
        self,
        images: Array,
        *,
        key: Array | None = None,
        placement: Placement | None = None,
        capture: Collection[str] = (),
    ) -> Any:
        """Class scores.

        Args:
          images: float [batch, height, width, 3] as the model's preprocessing makes them.
          key: of dropout and stochastic depth; None, as in evaluation, turns them off.
          placement: keeps activations sharded over a mesh; None leaves them to the compiler.
          capture: what to return besides, of the names in `captured`.

        Returns:
          float32 logits [batch, num_classes] (the features if `num_classes` is 0); with `capture`
          the pair of these and a dict of what was captured.

        Raises:
          UserError: `capture` holds a name that this model has not.
        """
        for name in capture:
            if name not in self.captured:
                raise UserError(f"capture: no {name!r}{nearest(name, self.captured)}")
        height, width = images.shape[1:3]
        if (height, width) != self.config.input_size:
            raise ValueError(
                f"images are {height}x{width}, the model's are {self.config.input_size}"
            )
        images = images.astype(self.config.dtype)
        features, captured = self._features(images, key, placement or OneDevice(), capture)
        logits = features.astype(jnp.float32)
        if self.config.num_classes:
            logits = self.head(logits)
        if not capture:
            return logits
        return logits, captured | ({"features": features} if "features" in capture else {})

    def _features(
        self, images: Array, key: Array | None, placement: Placement, capture: Collection[str]
    ) -> tuple[Array, dict[str, Array]]:
        """[batch, height, width, 3] -> [batch, features], and what else is captured."""
        raise NotImplementedError
