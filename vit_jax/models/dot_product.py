"""Scaled dot-product attention by several implementations."""

import math
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from vit_jax.models.placement import Placement

if TYPE_CHECKING:
    from jax.experimental.pallas.ops.tpu.flash_attention import BlockSizes

Implementation = Literal["xla", "cudnn", "pallas"]

# Lanes of a TPU's vectors. The rows of the kernel's blocks are a multiple of it.
_LANES = 128
# At 640 rows (577 tokens padded) a block's scores take 1.6 MB, a tenth of a core's fast memory.
_LARGEST_BLOCK = 640


def attend(
    query: Array,
    key: Array,
    value: Array,
    implementation: Implementation,
    placement: Placement,
    bias: Array | None = None,
) -> Array:
    """Mixes values by the softmax of queries and keys over the root of the head's size (eq. 7).

    Args:
      query, key, value: [batch, T, heads, size].
      implementation: `xla` composes it of matrix products; `cudnn` is NVIDIA's fused kernel;
        `pallas` is JAX's fused kernel for TPUs, which keeps no [T, T] array.
      bias: float32 [batch, heads, T, T], added to the scaled scores; with `xla` only.

    Returns:
      [batch, T, heads, size].
    """
    if implementation == "pallas":
        return placement.on_each_device(_flash)(query, key, value)
    if implementation == "xla" and bias is None:
        return _composed(query, key, value)
    return jax.nn.dot_product_attention(query, key, value, bias, implementation=implementation)


def _composed(query: Array, key: Array, value: Array) -> Array:
    """Attention as products that keep no scores for the backward pass."""
    query = query / math.sqrt(query.shape[-1])
    # With heads before tokens, as products want them in both passes: so they are kept.
    heads = (checkpoint_name(x.swapaxes(1, 2), "heads") for x in (query, key, value))
    return _mix(*heads).swapaxes(1, 2)


@jax.custom_vjp
def _mix(query: Array, key: Array, value: Array) -> Array:
    """Attention over [batch, heads, T, size], its queries scaled.

    As in FlashAttention (arXiv 2205.14135, appendix B), but with whole [T, T] arrays, in the type
    of the activations: the scores are computed again from queries and keys, the values are mixed
    before they are divided by the sum of the weights, and the mean gradient of a row's weights is
    taken from the mixture. Scores that are kept cost a stack of them over the blocks, written and
    read, which takes longer than their product.
    """
    return _forward(query, key, value)[0]


def _forward(query: Array, key: Array, value: Array) -> tuple[Array, tuple[Array, ...]]:
    scores = _dot(query, key, (3, 3))
    largest = scores.max(axis=-1, keepdims=True)
    weights = _weights(scores, largest)
    total = weights.sum(axis=-1, keepdims=True)
    mixed = (_dot(weights.astype(value.dtype), value, (3, 2)) / total).astype(value.dtype)
    return mixed, (query, key, value, largest, total, mixed)


def _backward(kept: tuple[Array, ...], gradient: Array) -> tuple[Array, Array, Array]:
    query, key, value, largest, total, mixed = kept
    weights = _weights(_dot(query, key, (3, 3)), largest) / total
    of_value = _dot(gradient, weights.astype(value.dtype), (2, 2)).swapaxes(2, 3)
    of_weights = _dot(gradient, value, (3, 3))
    mean = (gradient.astype(total.dtype) * mixed).sum(axis=-1, keepdims=True)
    of_scores = (weights * (of_weights - mean)).astype(query.dtype)
    of_query = _dot(of_scores, key, (3, 2))
    of_key = _dot(query, of_scores, (2, 2)).swapaxes(2, 3)
    return of_query, of_key, of_value


_mix.defvjp(_forward, _backward)


def _dot(left: Array, right: Array, axes: tuple[int, int]) -> Array:
    """The product of [batch, heads, ...] and [batch, heads, ...] over one axis of each."""
    contracted = (axes[0],), (axes[1],)
    return jax.lax.dot_general(left, right, (contracted, ((0, 1), (0, 1))))


def _weights(scores: Array, largest: Array) -> Array:
    """In float32 or better, each in [0, 1]."""
    exact = jnp.promote_types(scores.dtype, jnp.float32)
    return jnp.exp(scores.astype(exact) - largest)


def _flash(query: Array, key: Array, value: Array) -> Array:
    """The TPU kernel. Padding fills the last block, in a segment that no token attends to."""
    # Imported here because it takes a second and only TPUs need it.
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    batch, tokens, _, size = query.shape
    padded = -(-tokens // _LANES) * _LANES

    def pad(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, padded - tokens), (0, 0), (0, 0))).swapaxes(1, 2)

    is_padding = jnp.broadcast_to(jnp.arange(padded) >= tokens, (batch, padded)).astype(jnp.int32)
    mixed = flash.flash_attention(
        *(pad(x) for x in (query, key, value)),
        segment_ids=flash.SegmentIds(is_padding, is_padding) if padded > tokens else None,
        sm_scale=1 / math.sqrt(size),
        block_sizes=_blocks(padded),
    )
    return mixed.swapaxes(1, 2)[:, :tokens]


def _blocks(padded: int) -> "BlockSizes":
    """One block size for all parts: the largest that divides the tokens and fits."""
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    fitting = range(_LANES, min(padded, _LARGEST_BLOCK) + 1, _LANES)
    block = max(size for size in fitting if padded % size == 0)
    return flash.BlockSizes(
        block_q=block,
        block_k_major=block,
        block_k=block,
        block_b=1,
        block_q_major_dkv=block,
        block_k_major_dkv=block,
        block_k_dkv=block,
        block_q_dkv=block,
        block_k_major_dq=block,
        block_k_dq=block,
        block_q_dq=block,
    )
