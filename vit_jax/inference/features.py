"""Features: what a model knows of images before its head, of any block, pooled or patch by patch.

`get_intermediate_layers` of DINO's code and `forward_intermediates` of timm give the same.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.inference.local import on_local_devices
from vit_jax.inference.passes import Pass
from vit_jax.inference.requests import Arrays, Request
from vit_jax.models.config import ModelConfig
from vit_jax.models.model import Model


@dataclass(frozen=True)
class FeatureConfig:
    """Which features of a model to take."""

    tokens: Literal["pooled", "class", "mean", "patches"] = "pooled"
    """`pooled`: what the head sees. `class`: the class token. `mean`: the mean over the patches.
    `patches`: every patch, as a grid."""
    blocks: int = 1
    """The last so many blocks, the last one last, next to each other along the features."""
    norm: bool = True
    """Whether the norm that follows the last block is applied to each block."""

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise UserError(f"blocks={self.blocks} must be at least 1")
        if self.tokens == "pooled" and (self.blocks > 1 or not self.norm):
            raise UserError(
                "blocks and norm would be ignored: tokens=pooled is what the head sees; take "
                "tokens=class, mean or patches"
            )

    def check(self, model: Model) -> None:
        """Checks that a model has such features; it may be an abstract one.

        Raises:
          UserError: it has not.
        """
        config = model.config
        if not set(self.outputs) <= set(model.captured):
            raise UserError(
                f"tokens={self.tokens}: a {config.name} has no tokens; take tokens=pooled"
            )
        if self.tokens == "class" and not config.has_class_token:
            raise UserError(
                f"tokens=class: this {config.name} has no class token; take tokens=mean or pooled"
            )
        if config.blocks is not None and self.blocks > config.blocks.depth:
            raise UserError(f"blocks={self.blocks}: the model has {config.blocks.depth} blocks")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names in `Model.captured` that `select` needs."""
        if self.tokens == "pooled":
            return ("features",)
        if self.norm:
            return ("tokens",) if self.blocks == 1 else ("normed_layers",)
        return ("layers",)

    def select(self, captured: Arrays, model: ModelConfig) -> Array:
        """Takes the features from what a model captured.

        Args:
          captured: at least `outputs`, as `Model.__call__` gives them.
          model: completed, so that no key is left open.

        Returns:
          float32 [batch, width * blocks], or [batch, rows, columns, width * blocks] for
          `patches`, without class token and registers.
        """
        (name,) = self.outputs
        x = captured[name].astype(jnp.float32)
        if self.tokens == "pooled":
            return x
        layers = x[None] if name == "tokens" else x[-self.blocks :]
        # [blocks, batch, T, width] -> [batch, T, blocks * width]
        tokens = jnp.concatenate(list(layers), axis=-1)
        if self.tokens == "class":
            return tokens[:, 0]
        rows, columns = model.grid
        first = int(model.has_class_token)
        patches = tokens[:, first : first + rows * columns]
        if self.tokens == "mean":
            return patches.mean(axis=1)
        return patches.reshape(len(patches), rows, columns, -1)


class LabelledFeatures(NamedTuple):
    """Features of a source's images that can be read, in record order.

    Attributes:
      features: float32; see `FeatureConfig.select`.
      labels: int32 [images], or [images, labels] where records have several; -1 is no label.
    """

    features: np.ndarray
    labels: np.ndarray


def features(model: Model, images: Array, config: FeatureConfig | None = None) -> Array:
    """Features of images in memory.

    Args:
      images: [batch, height, width, 3] as `vit_jax.preprocess` makes them.
      config: None takes what the head sees.

    Returns:
      As `FeatureConfig.select`.

    Raises:
      UserError: the model has no such features.
    """
    config = config or FeatureConfig()
    config.check(model)
    _, captured = model(images, capture=config.outputs)
    return config.select(captured, model.config)


def features_of_source(
    model: Model,
    source: Source,
    config: FeatureConfig | None = None,
    *,
    batch_size: int | None = None,
    workers: int = 0,
    on_error: Literal["stop", "skip"] = "stop",
) -> LabelledFeatures:
    """Features of all images of a source, on all devices of this process.

    Args:
      config: None takes what the head sees.
      batch_size, workers, on_error: as in `inference.passes.Pass`.

    Raises:
      UserError: the model has no such features, or an image cannot be read.
    """
    config = config or FeatureConfig()
    config.check(model)

    def rows(batch: Arrays) -> Arrays:
        return {"features": config.select(batch, model.config), "labels": batch["labels"]}

    mesh, params = on_local_devices(model)
    requests = {"features": Request(source, outputs=config.outputs, rows=rows)}
    with Pass(
        model.config, mesh, requests, batch_size=batch_size, workers=workers, on_error=on_error
    ) as each:
        answer = each.run(params)["features"]
    return LabelledFeatures(answer.rows["features"], answer.rows["labels"])
