"""The Vision Transformer of "An Image is Worth 16x16 Words", section 3.1, and its hybrids."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vit_jax.models import blocks
from vit_jax.models.attention import (
    ATTENTION,
    ATTENTION_POOLING,
    MLP,
    Attention,
    AttentionPooling,
    Mlp,
    layer_norm,
)
from vit_jax.models.config import ModelConfig
from vit_jax.models.model import PATCH_EMBEDDING, Model, head
from vit_jax.models.placement import Placement
from vit_jax.models.positions import sincos2d
from vit_jax.models.resnet import Backbone, backbone_parameters
from vit_jax.parameters import Parameter, Table, dense, nested, norm, stacked

_BLOCK: Table = {
    **nested("norm1", norm("width", "block")),
    **nested("attention", ATTENTION),
    **nested("norm2", norm("width", "block")),
    **nested("mlp", MLP),
}


def parameters(config: ModelConfig) -> dict[str, Parameter]:
    """Describes the parameters of a ViT or a hybrid; `config` has nothing left open."""
    table = {
        **nested("embedding", PATCH_EMBEDDING),
        **nested("blocks", stacked(_BLOCK)),
        **nested("norm", norm("width", "norm")),
    }
    if config.resnet is not None:
        table |= nested("backbone", backbone_parameters(config))
    if config.has_class_token:
        table["cls"] = Parameter(("batch", "token", "width"), "embedding", "token")
    if config.registers:
        table["registers"] = Parameter(("batch", "registers", "width"), "embedding", "token")
    if config.positions == "learned":
        table["pos_embedding"] = Parameter(("batch", "positions", "width"), "embedding", "position")
    if config.pooling == "attention":
        table |= nested("pooling", ATTENTION_POOLING)
    features = "width"
    if config.representation_size is not None:
        features = "features"
        table |= nested("pre_logits", dense(("width",), (features,), "representation"))
    return table | head(config, features)


class Block(nnx.Module):
    """Pre-norm encoder block: x + MSA(LN(x)), then x + MLP(LN(x)) (eqs. 2 and 3)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        width = config.size.width
        self.norm1 = layer_norm(config, width, rngs=rngs)
        self.attention = Attention(config, config.attention, rngs=rngs)
        self.norm2 = layer_norm(config, width, rngs=rngs)
        self.mlp = Mlp(config, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout)

    def __call__(
        self,
        x: Array,
        key: Array | None,
        skip_rate: Array | None,
        placement: Placement,
        capture: Collection[str],
    ) -> tuple[Array, dict[str, Array]]:
        """[batch, T, width] -> [batch, T, width], and the attention's weights if captured.

        Args:
          key: of this block's dropout and stochastic depth; None turns both off.
          skip_rate: probability of skipping a branch, for each example; None is never.
        """
        keys = (None,) * 4 if key is None else tuple(jax.random.split(key, 4))
        normed, captured = placement.whole(self.norm1(x)), {}
        if "attention" in capture:
            y, captured["attention"] = self.attention.with_weights(normed, normed)
        else:
            y = self.attention(normed, normed, placement)
        y = placement.whole(self.dropout(y, deterministic=key is None, rngs=keys[0]))
        x = placement.constrain(x + blocks.skip(y, keys[1], skip_rate))
        y = placement.whole(self.mlp(placement.whole(self.norm2(x)), keys[2]))
        return x + blocks.skip(y, keys[3], skip_rate), captured


class ViT(Model):
    """Vision Transformer on the patches of an image or, as a hybrid, of a ResNet's output."""

    captured = ("features", "tokens", "layers", "attention")

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config)
        config = self.config
        width = config.size.width
        channels = 3
        if config.resnet is not None:
            self.backbone = Backbone(config, rngs=rngs)
            channels = config.resnet.channels
        patch = (config.embedding_size, config.embedding_size)
        self.embedding = nnx.Conv(
            channels, width, patch, strides=patch, padding="VALID", dtype=config.dtype, rngs=rngs
        )
        if config.has_class_token:
            self.cls = nnx.Param(jnp.zeros((1, 1, width)))
        if config.registers:
            draw = nnx.initializers.normal(0.02)
            self.registers = nnx.Param(draw(rngs.params(), (1, config.registers, width)))
        if config.positions == "learned":
            positions = config.sequence_length - config.registers
            draw = nnx.initializers.normal(0.02)
            self.pos_embedding = nnx.Param(draw(rngs.params(), (1, positions, width)))
        self.dropout = nnx.Dropout(config.dropout)
        self.blocks = blocks.stack(
            lambda rngs: Block(config, rngs=rngs), config.size.depth, rngs=rngs
        )
        self.norm = layer_norm(config, width, rngs=rngs)
        if config.pooling == "attention":
            self.pooling = AttentionPooling(config, rngs=rngs)
        features = width
        if config.representation_size is not None:
            features = config.representation_size
            self.pre_logits = nnx.Linear(width, features, dtype=config.dtype, rngs=rngs)
        self._add_head(features, rngs)

    def _features(
        self, images: Array, key: Array | None, placement: Placement, capture: Collection[str]
    ) -> tuple[Array, dict[str, Array]]:
        stem_key, encoder_key, pooling_key = (
            (None,) * 3 if key is None else tuple(jax.random.split(key, 3))
        )
        if self.config.resnet is not None:
            images = self.backbone(images, placement)
        tokens = placement.constrain(placement.whole(self._embed(images, stem_key)))
        tokens, captured = blocks.run(
            self.blocks, tokens, self.config, encoder_key, placement, capture
        )
        features = self._pool(tokens, pooling_key)
        if self.config.representation_size is not None:
            features = jnp.tanh(self.pre_logits(features))
        return features, captured | ({"tokens": self.norm(tokens)} if "tokens" in capture else {})

    def _embed(self, x: Array, key: Array | None) -> Array:
        """Patches to tokens, class token first, registers last; positions added (eq. 1)."""
        config = self.config
        x = self.embedding(x).reshape(x.shape[0], -1, config.size.width)
        if config.positions == "sincos2d":
            x = x + sincos2d(config.grid, config.size.width).astype(x.dtype)
        if config.has_class_token:
            x = jnp.concatenate([_repeat(self.cls[...], x), x], axis=1)
        if config.positions == "learned":
            x = x + self.pos_embedding[...].astype(x.dtype)
        if config.registers:
            x = jnp.concatenate([x, _repeat(self.registers[...], x)], axis=1)
        return self.dropout(x, deterministic=key is None, rngs=key)

    def _pool(self, tokens: Array, key: Array | None) -> Array:
        config = self.config
        rows, columns = config.grid
        first = int(config.has_class_token)
        patches = slice(first, first + rows * columns)
        if config.pooling == "token":
            return self.norm(tokens[:, 0])
        if config.pooling == "gap":
            return self.norm(tokens[:, patches]).mean(axis=1)
        if config.pooling == "gap_timm":
            return self.norm(tokens[:, patches].mean(axis=1))
        return self.pooling(self.norm(tokens), key)


def _repeat(token: Array, like: Array) -> Array:
    """[1, n, width] -> [batch, n, width] in the type of `like`."""
    return jnp.broadcast_to(token, (like.shape[0], *token.shape[1:])).astype(like.dtype)
