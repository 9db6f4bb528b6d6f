"""What all models have in common: the parts of their forward pass, and the head."""

import math
from collections.abc import Collection
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vit_jax.errors import UserError
from vit_jax.image_size import format_size
from vit_jax.losses import Loss
from vit_jax.models import summary
from vit_jax.models.config import ModelConfig
from vit_jax.models.placement import Placement
from vit_jax.parameters import Parameter, dense, nested
from vit_jax.preprocessing import largest_value
from vit_jax.spelling import nearest

# One key for each of `tokens`, `encode` and `pool`; None turns off what is random in it.
Keys = tuple[Array | None, Array | None, Array | None]


def head(config: ModelConfig, features: str) -> dict[str, Parameter]:
    """Describes the head on an axis of this name; a model without classes has none."""
    return nested("head", dense((features,), ("classes",), "head")) if config.num_classes else {}


class Model(nnx.Module):
    """Images to class scores, in five parts.

    `patches`, `tokens`, `encode`, `pool` and `classify` follow each other, and a call runs them
    all. Each can be used alone: to mask patches, to read features, or to predict something else
    from tokens. State is parameters only.

    Attributes:
      captured: what `__call__` and `encode` can return besides their result, by name:
          `features`: what the head sees, [batch, features]; of `__call__` only;
          `tokens`: the output of the blocks after their norm, [batch, T, width], class token first,
          registers last;
          `layers`: each block's output, [depth, batch, T, width];
          `normed_layers`: the same after the norm that follows the last block;
          `attention`: each block's weights, float32 [depth, batch, heads, T, T].
      config: completed, so that no key is left open.
      class_names: the names of the head's classes, if known.
      loss: the loss that the head was trained with, if known.
    """

    captured: tuple[str, ...] = ("features",)

    def __init__(self, config: ModelConfig):
        if config.num_classes is None:
            raise ValueError("num_classes must be known when a model is made")
        self.config = config.completed()
        self.class_names: tuple[str, ...] | None = None
        self.loss: Loss | None = None

    def __repr__(self) -> str:
        return summary.as_text(self._summary())

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        """What a notebook shows of a model that is the last line of a cell."""
        return summary.as_html(self._summary())

    def _summary(self) -> summary.Rows:
        parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(self)))
        return summary.rows(self.config, parameters, self.class_names)

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

    @overload
    def __call__(
        self,
        images: Array | np.ndarray,
        *,
        key: Array | None = None,
        placement: Placement | None = None,
    ) -> Array: ...

    @overload
    def __call__(
        self,
        images: Array | np.ndarray,
        *,
        key: Array | None = None,
        placement: Placement | None = None,
        capture: Collection[str],
    ) -> tuple[Array, dict[str, Array]]: ...

    def __call__(
        self,
        images: Array | np.ndarray,
        *,
        key: Array | None = None,
        placement: Placement | None = None,
        capture: Collection[str] = (),
    ) -> Array | tuple[Array, dict[str, Array]]:
        """Computes class scores.

        Args:
          images: float [batch, height, width, 3] as the model's preprocessing makes them.
          key: for dropout and stochastic depth; None, as in evaluation, turns them off.
          placement: keeps activations sharded over a mesh; None leaves them to the compiler.
          capture: what else to return, by the names in `captured`.

        Returns:
          float32 logits [batch, num_classes] (the features if `num_classes` is 0). If `capture`
          names anything, the pair of the logits and a dict of what was captured.

        Raises:
          UserError: `capture` holds a name that this model lacks; `images` have no batch axis, or
            hold pixels from 0 to 255. In a jitted function only their type and shape show.
        """
        self._require_images(images)
        for name in capture:
            if name not in self.captured:
                raise UserError(f"capture: no {name!r}{nearest(name, self.captured)}")
        stem_key, blocks_key, pooling_key = self._split(key)
        patches = self.patches(jnp.asarray(images), placement=placement)
        tokens = self.tokens(patches, key=stem_key, placement=placement)
        tokens, captured = self.encode(tokens, key=blocks_key, placement=placement, capture=capture)
        features = self.pool(tokens, key=pooling_key)
        logits = self.classify(features)
        if not capture:
            return logits
        return logits, captured | ({"features": features} if "features" in capture else {})

    def _require_images(self, images: Array | np.ndarray) -> None:
        """Refuses what would run, but with another meaning."""
        if images.ndim != 4 or images.shape[-1] != 3:
            raise UserError(
                f"images must be [batch, height, width, 3], not {list(images.shape)}; for one "
                "image write images[None]"
            )
        preprocessing = self.config.preprocessing
        assert preprocessing is not None
        remedy = "make them with vit_jax.preprocess(images, model)"
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise UserError(
                f"images hold {images.dtype}, and a model wants normalised float values, not "
                f"pixels from 0 to 255; {remedy}"
            )
        # Ten times what normalised pixels reach: nobody's noise, and no picture's brightest pixel.
        bound = 10 * largest_value(preprocessing)
        is_traced = isinstance(images, jax.core.Tracer)
        if not is_traced and images.size and getattr(images, "is_fully_addressable", True):
            # NumPy also computes while something else is traced, where JAX gives a tracer.
            largest = float(np.abs(np.asarray(images)).max())
            if largest > bound:
                raise UserError(
                    f"images hold values up to {largest:g}, like pixels from 0 to 255, and this "
                    f"model wants normalised ones, up to {bound / 10:.3g}; {remedy}"
                )

    def _split(self, key: Array | None) -> Keys:
        """The keys of `tokens`, `encode` and `pool` in a call with this key."""
        return None, key, None

    def patches(self, images: Array, *, placement: Placement | None = None) -> Array:
        """Embeds the patches of images, before anything tells where they are.

        Args:
          images: as in `__call__`.

        Returns:
          [batch, rows * columns, width], row by row; of a ResNet its output.

        Raises:
          ValueError: the images have another size than the model's.
        """
        raise NotImplementedError

    def tokens(
        self, patches: Array, *, key: Array | None = None, placement: Placement | None = None
    ) -> Array:
        """Makes the first block's input: adds positions, class token and registers if there are.

        Args:
          patches: [batch, rows * columns, width].
          key: for dropout; None turns it off.

        Returns:
          [batch, T, width]: class token, patches, registers.
        """
        del key, placement
        return patches

    def encode(
        self,
        tokens: Array,
        *,
        key: Array | None = None,
        placement: Placement | None = None,
        capture: Collection[str] = (),
    ) -> tuple[Array, dict[str, Array]]:
        """Runs the blocks.

        Args:
          tokens: [batch, T, width].
          key: for dropout and stochastic depth; None turns them off.
          capture: what else to return, by the names in `captured`. The norm after the blocks is in
            "tokens", but not in the first result: pooling needs tokens before it.

        Returns:
          Tokens [batch, T, width] and a dict of what was captured.
        """
        del key, placement, capture
        return tokens, {}

    def pool(self, tokens: Array, *, key: Array | None = None) -> Array:
        """Makes one vector of the tokens that `encode` returned.

        Args:
          tokens: [batch, T, width].
          key: for dropout; None turns it off.

        Returns:
          Features [batch, features], after the representation layer if there is one.
        """
        raise NotImplementedError

    def classify(self, features: Array) -> Array:
        """Applies the head.

        Args:
          features: [batch, features].

        Returns:
          float32 logits [batch, num_classes]; the features in float32 if `num_classes` is 0.
        """
        features = features.astype(jnp.float32)
        return self.head(features) if self.config.num_classes else features

    def _checked(self, images: Array) -> Array:
        """Images in the type of the activations."""
        height, width = images.shape[1:3]
        if (height, width) != self.config.input_size:
            raise ValueError(
                f"images are {height}x{width}, but the model's are "
                f"{format_size(self.config.input_size)}"
            )
        return images.astype(self.config.dtype)
