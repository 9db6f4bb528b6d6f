"""Multi-head self-attention and pooling by attention."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vit_jax.models.config import ModelConfig
from vit_jax.models.dot_product import Implementation, attend
from vit_jax.models.placement import OneDevice, Placement
from vit_jax.models.product import product
from vit_jax.parameters import Parameter, Table, dense, nested, norm

_xavier = nnx.initializers.xavier_uniform()


def _gelu_tanh(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=True)


def _gelu_exact(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


# By the name in a completed config.
GELUS: dict[str, Callable[[Array], Array]] = {"tanh": _gelu_tanh, "exact": _gelu_exact}

_HEADS = ("heads", "head_size")
ATTENTION: Table = {
    **nested("query", dense(("width",), _HEADS, "block")),
    **nested("key", dense(("width",), _HEADS, "block")),
    **nested("value", dense(("width",), _HEADS, "block")),
    **nested("out", dense(_HEADS, ("width",), "block")),
}
MLP: Table = {
    **nested("dense1", dense(("width",), ("hidden",), "block")),
    **nested("dense2", dense(("hidden",), ("width",), "block")),
}
ATTENTION_POOLING: Table = {
    "probe": Parameter(("batch", "queries", "width"), "embedding", "pooling"),
    **nested("attention", ATTENTION, "pooling"),
    **nested("norm", norm("width", "pooling")),
    **nested("mlp", MLP, "pooling"),
}


class Attention(nnx.Module):
    """Multi-head scaled dot-product attention (section 3.1, eqs. 5 to 8).

    Kernels are drawn Xavier-uniform at their 2-D shape (width, width) and then split into heads,
    so that their bound does not depend on the number of heads; `LinearGeneral` draws them so.
    """

    def __init__(self, config: ModelConfig, implementation: Implementation, *, rngs: nnx.Rngs):
        width, heads = config.size.width, config.size.num_heads
        split = (heads, width // heads)

        def project(
            inputs: int | tuple[int, int], outputs: int | tuple[int, int]
        ) -> nnx.LinearGeneral:
            axis = -1 if isinstance(inputs, int) else (-2, -1)
            return nnx.LinearGeneral(
                inputs,
                outputs,
                axis=axis,
                kernel_init=_xavier,
                dtype=config.dtype,
                dot_general=product,
                rngs=rngs,
            )

        self.query = project(width, split)
        self.key = project(width, split)
        self.value = project(width, split)
        self.out = project(split, width)
        self.implementation = implementation

    def __call__(
        self, queries: Array, tokens: Array, placement: Placement, pairs: Array | None = None
    ) -> Array:
        """[batch, Q, width] attends to [batch, T, width] -> [batch, Q, width].

        Args:
          pairs: what `Positions.pairs` returns, [Q, T, head size].
        """
        query, key, value = self.query(queries), self.key(tokens), self.value(tokens)
        bias = None if pairs is None else _pair_scores(query, pairs)
        return self.out(attend(query, key, value, self.implementation, placement, bias))

    def with_weights(
        self, queries: Array, tokens: Array, pairs: Array | None = None
    ) -> tuple[Array, Array]:
        """The same, and the weights: float32 [batch, heads, Q, T], each row sums to 1."""
        query, key, value = self.query(queries), self.key(tokens), self.value(tokens)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        scores = scores / query.shape[-1] ** 0.5
        weights = jax.nn.softmax(scores if pairs is None else scores + _pair_scores(query, pairs))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
        return self.out(mixed), weights


def _pair_scores(query: Array, pairs: Array) -> Array:
    """[batch, Q, heads, size] and [Q, T, size] -> scaled scores, float32 [batch, heads, Q, T]."""
    scores = jnp.einsum(
        "bqhd,qkd->bhqk", query, pairs.astype(query.dtype), preferred_element_type=jnp.float32
    )
    return scores / query.shape[-1] ** 0.5


class Mlp(nnx.Module):
    """Two dense layers with a GELU between them, and dropout after each (section 3.1, B.1)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        width, hidden = config.size.width, config.size.mlp_dim

        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(
                inputs,
                outputs,
                kernel_init=_xavier,
                bias_init=nnx.initializers.normal(1e-6),
                dtype=config.dtype,
                dot_general=product,
                rngs=rngs,
            )

        self.dense1 = linear(width, hidden)
        self.dense2 = linear(hidden, width)
        self.dropout = nnx.Dropout(config.dropout)
        self.gelu = GELUS[config.gelu]

    def __call__(self, x: Array, key: Array | None) -> Array:
        """[..., width] -> [..., width]; dropout is on when a key is given."""
        key1, key2 = (None, None) if key is None else jax.random.split(key)
        x = self.gelu(self.dense1(x))
        x = self.dropout(x, deterministic=key is None, rngs=key1)
        return self.dropout(self.dense2(x), deterministic=key is None, rngs=key2)


class AttentionPooling(nnx.Module):
    """A learned query attends to all tokens, followed by a residual MLP.

    From Scaling Vision Transformers (arXiv 2106.04560), section 3.2, as in the authors' code.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        width = config.size.width
        self.probe = nnx.Param(_xavier(rngs.params(), (1, 1, width), jnp.float32))
        # One query is too few for the fused kernels.
        self.attention = Attention(config, "xla", rngs=rngs)
        self.norm = layer_norm(config, width, rngs=rngs)
        self.mlp = Mlp(config, rngs=rngs)

    def __call__(self, tokens: Array, key: Array | None) -> Array:
        """[batch, T, width] -> [batch, width]."""
        probe = jnp.broadcast_to(self.probe[...], (tokens.shape[0], 1, tokens.shape[2]))
        pooled = self.attention(probe.astype(tokens.dtype), tokens, OneDevice())
        return (pooled + self.mlp(self.norm(pooled), key))[:, 0]


def layer_norm(config: ModelConfig, width: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """A normalisation over `width` channels, for a completed config."""
    assert config.norm_epsilon is not None
    return nnx.LayerNorm(width, epsilon=config.norm_epsilon, dtype=config.dtype, rngs=rngs)
