"""The Vision Transformer of "An Image is Worth 16x16 Words", section 3.1."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vit_jax.errors import UserError
from vit_jax.models.attention import Attention, AttentionPooling, Mlp, layer_norm
from vit_jax.models.config import ModelConfig
from vit_jax.models.positions import sincos2d
from vit_jax.schema import nearest

# Places activations on the devices: given tokens [batch, T, width], returns them constrained.
Constrain = Callable[[Array], Array]

# What `ViT.__call__` can return besides the logits.
CAPTURED = ("features", "tokens", "layers", "attention")

_REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "block": jax.checkpoint_policies.nothing_saveable,
}


class Block(nnx.Module):
    """Pre-norm encoder block: x + MSA(LN(x)), then x + MLP(LN(x)) (eqs. 2 and 3)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.norm1 = layer_norm(config, rngs=rngs)
        self.attention = Attention(config, rngs=rngs)
        self.norm2 = layer_norm(config, rngs=rngs)
        self.mlp = Mlp(config, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout)

    def __call__(
        self, x: Array, key: Array | None, skip_rate: Array | None, *, with_weights: bool = False
    ) -> tuple[Array, Array | None]:
        """[batch, T, width] -> [batch, T, width], and the attention's weights if they are wanted.

        Args:
          key: of this block's dropout and stochastic depth; None turns both off.
          skip_rate: probability of skipping a branch, for each example; None is never.
        """
        keys = (None,) * 4 if key is None else tuple(jax.random.split(key, 4))
        normed = self.norm1(x)
        if with_weights:
            y, weights = self.attention.with_weights(normed, normed)
        else:
            y, weights = self.attention(normed, normed), None
        y = self.dropout(y, deterministic=key is None, rngs=keys[0])
        x = x + _skip(y, keys[1], skip_rate)
        return x + _skip(self.mlp(self.norm2(x), keys[2]), keys[3], skip_rate), weights


class ViT(nnx.Module):
    """Images to class scores.

    State is parameters only. The blocks' parameters are stacked on their first axis, whether
    the encoder is scanned or unrolled, so that weights and checkpoints do not depend on it.

    Attributes:
      config: with `num_classes` set.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        if config.num_classes is None:
            raise ValueError("num_classes must be known when a model is made")
        config = config.following()
        self.config = config
        self.class_names: tuple[str, ...] | None = None
        width, depth = config.size.width, config.size.depth
        patch = (config.patch_size, config.patch_size)
        self.embedding = nnx.Conv(
            3, width, patch, strides=patch, padding="VALID", dtype=config.dtype, rngs=rngs
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

        @nnx.split_rngs(splits=depth)
        @nnx.vmap
        def stack_of_blocks(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs=rngs)

        self.blocks = stack_of_blocks(rngs)
        self.norm = layer_norm(config, rngs=rngs)
        if config.pooling == "attention":
            self.pooling = AttentionPooling(config, rngs=rngs)
        features = width
        if config.representation_size is not None:
            features = config.representation_size
            self.pre_logits = nnx.Linear(width, features, dtype=config.dtype, rngs=rngs)
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
        constrain: Constrain | None = None,
        capture: Collection[str] = (),
    ) -> Any:
        """Class scores.

        Args:
          images: float [batch, height, width, 3] as the model's preprocessing makes them.
          key: of dropout and stochastic depth; None, as in evaluation, turns them off.
          constrain: keeps activations sharded over a mesh.
          capture: what to return besides, by name:
              `features`: what the head sees, [batch, width or representation_size];
              `tokens`: the encoder's output after its norm, [batch, T, width], class token first,
              registers last;
              `layers`: each block's output, [depth, batch, T, width];
              `attention`: each block's weights, float32 [depth, batch, heads, T, T].

        Returns:
          float32 logits [batch, num_classes] (the features if `num_classes` is 0); with `capture`
          the pair of these and a dict of what was captured.

        Raises:
          UserError: `capture` holds an unknown name.
        """
        for name in capture:
            if name not in CAPTURED:
                raise UserError(f"capture: no {name!r}{nearest(name, CAPTURED)}")
        constrain = constrain or (lambda x: x)
        stem_key, encoder_key, pooling_key = (
            (None,) * 3 if key is None else tuple(jax.random.split(key, 3))
        )
        tokens = constrain(self._embed(images, stem_key))
        tokens, captured = self._encode(tokens, encoder_key, constrain, capture)
        features = self._pool(tokens, pooling_key)
        if self.config.representation_size is not None:
            features = jnp.tanh(self.pre_logits(features))
        logits = features.astype(jnp.float32)
        if self.config.num_classes:
            logits = self.head(logits)
        if not capture:
            return logits
        if "features" in capture:
            captured["features"] = features
        if "tokens" in capture:
            captured["tokens"] = self.norm(tokens)
        return logits, captured

    def _embed(self, images: Array, key: Array | None) -> Array:
        """Patches to tokens, class token first, registers last; positions added (eq. 1)."""
        config = self.config
        batch, height, width = images.shape[:3]
        if (height, width) != config.input_size:
            raise ValueError(f"images are {height}x{width}, the model's are {config.input_size}")
        x = self.embedding(images.astype(config.dtype)).reshape(batch, -1, config.size.width)
        if config.positions == "sincos2d":
            x = x + sincos2d(config.grid, config.size.width).astype(x.dtype)
        if config.has_class_token:
            x = jnp.concatenate([_repeat(self.cls[...], x), x], axis=1)
        if config.positions == "learned":
            x = x + self.pos_embedding[...].astype(x.dtype)
        if config.registers:
            x = jnp.concatenate([x, _repeat(self.registers[...], x)], axis=1)
        return self.dropout(x, deterministic=key is None, rngs=key)

    def _encode(
        self, tokens: Array, key: Array | None, constrain: Constrain, capture: Collection[str]
    ) -> tuple[Array, dict[str, Array]]:
        config, depth = self.config, self.config.size.depth
        graphdef, stacked = nnx.split(self.blocks)
        keys = None if key is None else jax.random.split(key, depth)
        # Linear in depth (How to train your ViT?, section 3.3): never the first block.
        skip_rates = jnp.linspace(0.0, config.stochastic_depth, depth)
        has_skips = config.stochastic_depth > 0

        def body(x, layer):
            params, layer_key, rate = layer
            block = nnx.merge(graphdef, params)
            rate = rate if has_skips else None
            x, weights = block(x, layer_key, rate, with_weights="attention" in capture)
            x = constrain(x)
            outputs = {"layers": x, "attention": weights}
            return x, {name: outputs[name] for name in outputs if name in capture}

        if config.remat != "none":
            # Common subexpressions cannot be merged across the iterations of a scan.
            body = jax.checkpoint(
                body, policy=_REMAT_POLICIES[config.remat], prevent_cse=not config.scan
            )
        unroll = 1 if config.scan else depth
        return jax.lax.scan(body, tokens, (stacked, keys, skip_rates), unroll=unroll)

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


def _skip(branch: Array, key: Array | None, rate: Array | None) -> Array:
    """Zeroes the branch for a share `rate` of the examples and scales up the others to match."""
    if key is None or rate is None:
        return branch
    kept = jax.random.bernoulli(key, 1 - rate, (branch.shape[0], 1, 1))
    return jnp.where(kept, branch / (1 - rate).astype(branch.dtype), 0)
