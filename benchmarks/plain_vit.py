"""A ViT as anyone would write it with Flax Linen's own modules, to measure ours against.

It has the structure of the published code of "An Image is Worth 16x16 Words" and of big_vision's
`vit.py`: pre-norm blocks, learned positions, a class token, optionally a scan over the blocks with
a rematerialisation policy. Its parameters bear our names, so that both models can start equal.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params

Remat = Literal["none", "dots", "block"]
Step = Callable[[Params, Any, Array, Array], tuple[Params, Any, Array]]

POLICIES: dict[Remat, Callable[..., Any]] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "block": jax.checkpoint_policies.nothing_saveable,
}
_xavier = nn.initializers.xavier_uniform()


class Mlp(nn.Module):
    """Two dense layers with a GELU between them."""

    hidden: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[batch, T, width] -> [batch, T, width]."""
        options: dict[str, Any] = {
            "dtype": self.dtype,
            "kernel_init": _xavier,
            "bias_init": nn.initializers.normal(1e-6),
        }
        width = x.shape[-1]
        x = nn.Dense(self.hidden, name="dense1", **options)(x)
        return nn.Dense(width, name="dense2", **options)(nn.gelu(x))


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

    num_heads: int
    hidden: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, None]:
        """[batch, T, width] -> [batch, T, width], and None, as `nn.scan` wants it."""
        y = nn.LayerNorm(dtype=self.dtype, name="norm1")(x)
        x = x + nn.MultiHeadDotProductAttention(
            self.num_heads, dtype=self.dtype, kernel_init=_xavier, name="attention"
        )(y, y)
        y = nn.LayerNorm(dtype=self.dtype, name="norm2")(x)
        return x + Mlp(self.hidden, self.dtype, name="mlp")(y), None


class PlainViT(nn.Module):
    """ViT with a class token, learned positions and a head in float32.

    Attributes:
      dtype: of the activations; parameters are float32.
      scan: loops over stacked blocks; False unrolls them, as both published codes do by default.
      remat: what the backward pass recomputes in a block: nothing, all but products of activations
        with parameters, or everything.
    """

    patch_size: int
    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    num_classes: int
    dtype: Any = jnp.float32
    scan: bool = False
    remat: Remat = "none"

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Normalised images [batch, height, width, 3] -> float32 logits [batch, classes]."""
        width, side = self.width, (self.patch_size,) * 2
        x = nn.Conv(width, side, strides=side, padding="VALID", dtype=self.dtype, name="embedding")(
            images
        )
        x = x.reshape(x.shape[0], -1, width)
        cls = self.param("cls", nn.initializers.zeros, (1, 1, width))
        x = jnp.concatenate([jnp.tile(cls, (x.shape[0], 1, 1)).astype(x.dtype), x], axis=1)
        draw = nn.initializers.normal(0.02)
        positions = self.param("pos_embedding", draw, (1, x.shape[1], width))
        x = self._blocks(x + positions.astype(x.dtype))
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(x)[:, 0]
        head = nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")
        return head(x.astype(jnp.float32))

    def _blocks(self, x: Array) -> Array:
        block: Any = Block
        if self.remat != "none":
            block = nn.remat(Block, policy=POLICIES[self.remat], prevent_cse=not self.scan)
        sizes = (self.num_heads, self.mlp_dim, self.dtype)
        if self.scan:
            stack = nn.scan(
                block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth
            )
            return stack(*sizes, name="blocks")(x)[0]
        for i in range(self.depth):
            x, _ = block(*sizes, name=f"blocks_{i}")(x)
        return x


def plain_vit(config: ModelConfig, *, scan: bool = False, remat: Remat = "none") -> PlainViT:
    """The plain form of a ViT of ours: class token, learned positions, tanh GELU, epsilon 1e-6."""
    config = config.completed()
    assert config.family == "vit" and config.num_classes is not None
    plain = (config.pooling, config.positions, config.gelu, config.norm_epsilon)
    assert plain == ("token", "learned", "tanh", 1e-6), plain
    return PlainViT(
        patch_size=config.patch_size,
        width=config.size.width,
        depth=config.size.depth,
        mlp_dim=config.size.mlp_dim,
        num_heads=config.size.num_heads,
        num_classes=config.num_classes,
        dtype=jnp.dtype(config.dtype),
        scan=scan,
        remat=remat,
    )


def plain_params(params: Params, *, scan: bool = False) -> Params:
    """Our parameters as the plain model's `params`: each block on its own, or stacked as ours."""
    if scan:
        return params
    rest = {name: value for name, value in params.items() if name != "blocks"}
    (depth,) = {leaf.shape[0] for leaf in jax.tree.leaves(params["blocks"])}
    return rest | {
        f"blocks_{i}": jax.tree.map(lambda x, i=i: x[i], params["blocks"]) for i in range(depth)
    }


def plain_adamw(rate: float, *, weight_decay: float, clip_norm: float) -> Any:
    """AdamW on gradients that are clipped by their global norm."""
    return optax.chain(
        optax.clip_by_global_norm(clip_norm), optax.adamw(rate, weight_decay=weight_decay)
    )


def train_step(model: PlainViT, optimizer: optax.GradientTransformation) -> Step:
    """The step (params, opt_state, images, labels) -> (params, opt_state, loss), not yet jitted.

    Images are uint8 [batch, height, width, 3], which it takes to [-1, 1], and labels int32 [batch].
    The loss is the mean cross-entropy of the softmax.
    """

    def loss(params: Params, images: Array, labels: Array) -> Array:
        logits = model.apply({"params": params}, images.astype(jnp.float32) / 127.5 - 1)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(
        params: Params, opt_state: Any, images: Array, labels: Array
    ) -> tuple[Params, Any, Array]:
        value, grads = jax.value_and_grad(loss)(params, images, labels)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return step
