"""Masked patch prediction, the paper's self-supervision (arXiv 2010.11929, sections 4.6 and B.1.2).

Half of the patch embeddings of each image are corrupted before positions are added: replaced by a
learnt mask token (80 %) or by the embedding of another patch of the image (10 %), or kept (10 %).
From the output of each corrupted patch, a linear head predicts what the patch shows.

The paper leaves open, and here it is: exactly floor(share N) of N patches are corrupted, and what
becomes of each is drawn on its own; the head reads the output after the last norm; the mask token
and the head's kernel start normal with deviation 0.02; pixels are compared in the model's range.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from vit_jax.errors import UserError
from vit_jax.models.functional import Params, apply_part
from vit_jax.parameters import Parameter, Table, dense, nested
from vit_jax.preprocessing import PreprocessingConfig, normalize
from vit_jax.training.mix import random_flip
from vit_jax.training.objectives import (
    Batch,
    Examples,
    ObjectiveConfig,
    ObjectiveContext,
    split_params,
)
from vit_jax.training.patch_targets import (
    CELLS,
    COLOURS,
    downsized_colours,
    in_patches,
    mean_colours,
)

_MASK_SHARE, _OTHER_SHARE = 0.8, 0.1
_DEVIATION = 0.02


class _Target(NamedTuple):
    """What is predicted of a patch.

    Attributes:
      outputs: of the head, for a patch of a side in pixels.
      losses: of each patch, from outputs float32 [batch, patches, outputs], pixels uint8 [batch,
        patches, side, side, 3] and the model's preprocessing: float32 [batch, patches], and the
        share of colours that are right if colours are what is predicted.
    """

    outputs: Callable[[int], int]
    losses: Callable[[Array, Array, PreprocessingConfig], tuple[Array, Array | None]]


def _classified(classes: Callable[[Array], Array]) -> Callable[..., tuple[Array, Array]]:
    """Losses of colours: the mean cross-entropy over the colours of a patch."""

    def losses(outputs: Array, pixels: Array, _: PreprocessingConfig) -> tuple[Array, Array]:
        expected = classes(pixels)
        logits = outputs.reshape(*expected.shape, COLOURS)
        entropies = optax.softmax_cross_entropy_with_integer_labels(logits, expected)
        right = (logits.argmax(axis=-1) == expected).astype(jnp.float32)
        return entropies.mean(axis=-1), right.mean(axis=-1)

    return losses


def _regressed(
    outputs: Array, pixels: Array, preprocessing: PreprocessingConfig
) -> tuple[Array, None]:
    """The mean squared error over the values of a patch."""
    values = normalize(pixels, preprocessing).reshape(outputs.shape)
    return jnp.square(outputs - values).mean(axis=-1), None


_TARGETS = {
    "mean_colour": _Target(lambda side: COLOURS, _classified(mean_colours)),
    "downsized": _Target(lambda side: CELLS**2 * COLOURS, _classified(downsized_colours)),
    "pixels": _Target(lambda side: 3 * side**2, _regressed),
}


class MaskedPatches:
    """Predicts what corrupted patches show. It reads no labels.

    The loss of an image is the mean over its corrupted patches. `patch_accuracy` is the share of
    colours that are right.
    """

    def __init__(self, context: ObjectiveContext, config: "MaskedPatchesConfig") -> None:
        model = context.model
        assert model.preprocessing is not None
        rows, columns = model.grid
        self._patches = rows * columns
        self._corrupted = int(config.share * self._patches)
        self._side = model.patch_size
        self._target = _TARGETS[config.target]
        self._grid, self._preprocessing = model.grid, model.preprocessing
        self._width = model.size.width
        self._first = int(model.has_class_token)
        self._flip, self._placement = context.data.flip, context.placement
        self._to_patches, self._to_tokens, self._encode = (
            apply_part(model, part) for part in ("patches", "tokens", "encode")
        )
        self.parameters: Table = {
            "mask": Parameter(("width",), "embedding", "token"),
            **nested("head", dense(("width",), ("outputs",), "head")),
        }
        self.fixed: Any = ()
        self.fixed_digest: str | None = None

    def init(self, key: Array) -> Params:
        """The mask token and the head."""
        mask_key, head_key = jax.random.split(key)
        outputs = self._target.outputs(self._side)
        return {
            "mask": _DEVIATION * jax.random.normal(mask_key, (self._width,)),
            "head": {
                "kernel": _DEVIATION * jax.random.normal(head_key, (self._width, outputs)),
                "bias": jnp.zeros(outputs),
            },
        }

    def prepare(self, batch: Batch, keys: tuple[Array, Array]) -> Batch:
        """Flips, and draws for the whole batch which patches are corrupted, and how."""
        flip_key, corrupt_key = keys
        which_key, what_key, other_key = jax.random.split(corrupt_key, 3)
        shape = (len(batch["weights"]), self._patches)
        ranks = jax.random.uniform(which_key, shape).argsort(axis=1).argsort(axis=1)
        steps = jax.random.randint(other_key, shape, 1, self._patches)
        images = batch["images"]
        return {
            "images": random_flip(flip_key, images) if self._flip else images,
            "weights": batch["weights"],
            "corrupted": ranks < self._corrupted,
            "what": jax.random.uniform(what_key, shape),
            # A step of 1 to N - 1 leads to any patch but this one.
            "other": (jnp.arange(self._patches) + steps) % self._patches,
        }

    def losses(self, params: Params, fixed: Any, batch: Batch, key: Array) -> Examples:
        """See the class."""
        del fixed
        model, own = split_params(params)
        stem_key, blocks_key = jax.random.split(key)
        options: dict[str, Any] = {"placement": self._placement}
        images = normalize(batch["images"], self._preprocessing)
        patches = corrupt(self._to_patches(model, images, **options), own["mask"], batch)
        tokens = self._to_tokens(model, patches, key=stem_key, **options)
        _, captured = self._encode(model, tokens, key=blocks_key, capture=("tokens",), **options)
        seen = captured["tokens"][:, self._first : self._first + self._patches]
        outputs = seen.astype(jnp.float32) @ own["head"]["kernel"] + own["head"]["bias"]
        pixels = in_patches(batch["images"], self._grid, self._side)
        losses, right = self._target.losses(outputs, pixels, self._preprocessing)
        metrics = {} if right is None else {"patch_accuracy": self._mean(right, batch)}
        return Examples(self._mean(losses, batch), metrics, batch["weights"])

    def _mean(self, values: Array, batch: Batch) -> Array:
        """[rows, patches] -> [rows], over corrupted patches."""
        return jnp.where(batch["corrupted"], values, 0).sum(axis=1) / self._corrupted


def corrupt(patches: Array, mask: Array, batch: Batch) -> Array:
    """Corrupts the patch embeddings that were drawn.

    Args:
      patches: float [rows, patches, width].
      mask: [width].
      batch: `corrupted` bool, `what` from 0 to 1 and `other` int, each [rows, patches].
    """
    others = jnp.take_along_axis(patches, batch["other"][..., None], axis=1)
    what = batch["what"][..., None]
    changed = jnp.where(what < _MASK_SHARE + _OTHER_SHARE, others, patches)
    changed = jnp.where(what < _MASK_SHARE, mask.astype(patches.dtype), changed)
    return jnp.where(batch["corrupted"][..., None], changed, patches)


@ObjectiveConfig.kinds.register("masked_patches")
@dataclass(frozen=True)
class MaskedPatchesConfig(ObjectiveConfig):
    """Learns without labels: predicts what patches show that the model does not see."""

    learns_labels: ClassVar[bool] = False

    target: Literal["mean_colour", "downsized", "pixels"] = "mean_colour"
    """What is predicted of a patch. mean_colour: one of 512 colours, as in the paper's results.
    downsized: 4x4 of them. pixels: all its values, by their squared error."""
    share: float = 0.5
    """Share of the patches of an image that are corrupted."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"share must be above 0 and at most 1, not {self.share}")

    def make(self, context: ObjectiveContext) -> MaskedPatches:
        """The objective, for one model on one mesh.

        Raises:
          UserError: the model has no tokens, or its patches do not fit the target.
        """
        model = context.model
        if model.blocks is None:
            raise UserError(
                f"objective.kind=masked_patches needs patch tokens, and {model.name} has none; "
                "take a ViT, a hybrid or a Mixer"
            )
        sides = zip(model.grid, model.input_size, strict=True)
        if any(count * model.patch_size > side for count, side in sides):
            raise UserError(
                f"objective.kind=masked_patches: the patches of {model.name} reach over the edge "
                f"of its images; let model.image_size be a multiple of {model.patch_size}"
            )
        patches = math.prod(model.grid)
        if patches < 2 or int(self.share * patches) < 1:
            raise UserError(
                f"objective.share={self.share:g} leaves no patch to corrupt among the {patches} of "
                "an image; raise model.image_size, or take smaller patches"
            )
        if self.target == "downsized" and model.patch_size < CELLS:
            raise UserError(
                f"objective.target=downsized needs patches of at least {CELLS} pixels, and those "
                f"of {model.name} have {model.patch_size}; take mean_colour"
            )
        return MaskedPatches(context, self)
