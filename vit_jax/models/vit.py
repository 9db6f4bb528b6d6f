"""The Vision Transformer of "An Image is Worth 16x16 Words", section 3.1, and its hybrids."""

import functools
from collections.abc import Collection

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vit_jax.models import (
    blocks,
    learned_positions,  # noqa: F401  It registers position schemes.
)
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
from vit_jax.models.model import Keys, head
from vit_jax.models.placement import OneDevice, Placement
from vit_jax.models.positions import scheme
from vit_jax.models.resnet import Backbone, backbone_parameters
from vit_jax.models.token_model import PATCH_EMBEDDING, TokenModel
from vit_jax.parameters import Parameter, Table, dense, nested, norm, stacked

BLOCK: Table = {
    **nested("norm1", norm("width", "block")),
    **nested("attention", ATTENTION),
    **nested("norm2", norm("width", "block")),
    **nested("mlp", MLP),
}


def parameters(config: ModelConfig) -> dict[str, Parameter]:
    """Describes the parameters of a ViT or a hybrid; `config` must be completed."""
    positions = scheme(config)
    in_blocks = positions.layer_parameters(config)
    _require_free(config, BLOCK, in_blocks)
    return table_of(config, {**BLOCK, **in_blocks})


def table_of(config: ModelConfig, block: Table) -> dict[str, Parameter]:
    """Describes the parameters of a ViT whose blocks each have those of `block`."""
    positions = scheme(config)
    table = {
        **nested("embedding", PATCH_EMBEDDING),
        **nested("blocks", stacked(block)),
        **nested("norm", norm("width", "norm")),
    }
    if config.resnet is not None:
        table |= nested("backbone", backbone_parameters(config))
    if config.has_class_token:
        table["cls"] = Parameter(("batch", "token", "width"), "embedding", "token")
    if config.registers:
        table["registers"] = Parameter(("batch", "registers", "width"), "embedding", "token")
    if config.pooling == "attention":
        table |= nested("pooling", ATTENTION_POOLING)
    features = "width"
    if config.representation_size is not None:
        features = "features"
        table |= nested("pre_logits", dense(("width",), (features,), "representation"))
    table |= head(config, features)
    own = positions.parameters(config)
    _require_free(config, table, own)
    return {**table, **own}


def _require_free(config: ModelConfig, table: Table, own: Table) -> None:
    """Refuses parameters of a scheme that have a name of the model's."""
    first_names = {path.partition("/")[0] for path in table} | table.keys()
    if taken := first_names & own.keys():
        raise ValueError(
            f"positions={config.positions!r}: the model has its own {', '.join(sorted(taken))}; "
            "rename the scheme's parameters"
        )


class Block(nnx.Module):
    """Pre-norm encoder block: x + MSA(LN(x)), then x + MLP(LN(x)) (eqs. 2 and 3)."""

    def __init__(
        self, config: ModelConfig, attention: type[Attention] = Attention, *, rngs: nnx.Rngs
    ):
        width = config.size.width
        self.norm1 = layer_norm(config, width, rngs=rngs)
        self.attention = attention(config, config.attention, rngs=rngs)
        self.norm2 = layer_norm(config, width, rngs=rngs)
        self.mlp = Mlp(config, rngs=rngs)
        for name, value in scheme(config).layer_init(config, rngs).items():
            setattr(self, name, nnx.Param(value))
        self.config = config
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
          key: for this block's dropout and stochastic depth; None turns both off.
          skip_rate: probability of skipping a branch, for each example; None never skips.
        """
        keys = (None,) * 4 if key is None else tuple(jax.random.split(key, 4))
        captured: dict[str, Array] = {}
        positions = scheme(self.config)
        names = positions.layer_parameters(self.config)
        params = {name: getattr(self, name)[...] for name in names}
        x = positions.on_layer(x, params, self.config)
        pairs = positions.pairs(params, self.config)

        def attend(x: Array) -> Array:
            if "attention" in capture:
                y, captured["attention"] = self.attention.with_weights(x, x, pairs)
            else:
                y = self.attention(x, x, placement, pairs)
            return self.dropout(y, deterministic=key is None, rngs=keys[0])

        def mlp(x: Array) -> Array:
            return self.mlp(x, keys[2])

        branch = functools.partial(blocks.branch, skip_rate=skip_rate, placement=placement)
        x = placement.constrain(x + branch(self.norm1, attend, x, keys[1]))  # eq. 2
        return x + branch(self.norm2, mlp, x, keys[3]), captured  # eq. 3


class ViT(TokenModel):
    """Vision Transformer on the patches of an image or, as a hybrid, of a ResNet's output."""

    captured: tuple[str, ...] = ("features", "tokens", "layers", "normed_layers", "attention")

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config)
        config = self.config
        width = config.size.width
        channels = 3
        if config.resnet is not None:
            self.backbone = Backbone(config, rngs=rngs)
            channels = config.resnet.channels
        self._add_embedding(channels, width, rngs)
        if config.has_class_token:
            self.cls = nnx.Param(jnp.zeros((1, 1, width)))
        if config.registers:
            draw = nnx.initializers.normal(0.02)
            self.registers = nnx.Param(draw(rngs.params(), (1, config.registers, width)))
        for name, value in scheme(config).init(config, rngs).items():
            setattr(self, name, nnx.Param(value))
        self.dropout = nnx.Dropout(config.dropout)
        make = self._block
        self.blocks = blocks.stack(lambda rngs: make(config, rngs), config.size.depth, rngs=rngs)
        self.norm = layer_norm(config, width, rngs=rngs)
        if config.pooling == "attention":
            self.pooling = AttentionPooling(config, rngs=rngs)
        features = width
        if config.representation_size is not None:
            features = config.representation_size
            self.pre_logits = nnx.Linear(width, features, dtype=config.dtype, rngs=rngs)
        self._add_head(features, rngs)

    @staticmethod
    def _block(config: ModelConfig, rngs: nnx.Rngs) -> nnx.Module:
        return Block(config, rngs=rngs)

    def _split(self, key: Array | None) -> Keys:
        if key is None:
            return None, None, None
        stem_key, blocks_key, pooling_key = jax.random.split(key, 3)
        return stem_key, blocks_key, pooling_key

    def patches(self, images: Array, *, placement: Placement | None = None) -> Array:
        """See `Model.patches`."""
        x = self._checked(images)
        if self.config.resnet is not None:
            x = self.backbone(x, placement or OneDevice())
        return self._embed(x)

    def tokens(
        self, patches: Array, *, key: Array | None = None, placement: Placement | None = None
    ) -> Array:
        """Class token first, registers last; positions added (eq. 1)."""
        config, x = self.config, patches
        positions, params = scheme(config), self._position_params()
        x = positions.on_patches(x, params, config)
        if config.has_class_token:
            x = jnp.concatenate([_repeat(self.cls[...], x), x], axis=1)
        x = positions.on_tokens(x, params, config)
        if config.registers:
            x = jnp.concatenate([x, _repeat(self.registers[...], x)], axis=1)
        x = self.dropout(x, deterministic=key is None, rngs=key)
        return super().tokens(x, placement=placement)

    def _before_layers(self, tokens: Array) -> Array:
        return scheme(self.config).before_layers(tokens, self._position_params(), self.config)

    def _position_params(self) -> dict[str, Array]:
        names = scheme(self.config).parameters(self.config)
        return {name: getattr(self, name)[...] for name in names}

    def pool(self, tokens: Array, *, key: Array | None = None) -> Array:
        """See `Model.pool`."""
        features = self._pool(tokens, key)
        if self.config.representation_size is not None:
            features = jnp.tanh(self.pre_logits(features))
        return features

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
