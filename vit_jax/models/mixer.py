"""MLP-Mixer (arXiv 2105.01601): blocks that mix tokens, then channels."""

import functools
from collections.abc import Collection

import jax
from flax import nnx
from jax import Array

from vit_jax.models import blocks
from vit_jax.models.attention import GELUS, layer_norm
from vit_jax.models.config import ModelConfig
from vit_jax.models.model import head
from vit_jax.models.placement import Placement
from vit_jax.models.token_model import PATCH_EMBEDDING, TokenModel
from vit_jax.parameters import Parameter, Table, dense, nested, norm, stacked

_BLOCK: Table = {
    **nested("norm1", norm("width", "block")),
    **nested("token_mixing/dense1", dense(("positions",), ("hidden",), "block")),
    **nested("token_mixing/dense2", dense(("hidden",), ("positions",), "block")),
    **nested("norm2", norm("width", "block")),
    **nested("channel_mixing/dense1", dense(("width",), ("hidden",), "block")),
    **nested("channel_mixing/dense2", dense(("hidden",), ("width",), "block")),
}


def parameters(config: ModelConfig) -> dict[str, Parameter]:
    """Describes the parameters of a Mixer."""
    return {
        **nested("embedding", PATCH_EMBEDDING),
        **nested("blocks", stacked(_BLOCK)),
        **nested("norm", norm("width", "norm")),
        **head(config, "width"),
    }


class Mixing(nnx.Module):
    """Two dense layers with a GELU between them, drawn as in the authors' code."""

    def __init__(self, config: ModelConfig, width: int, hidden: int, *, rngs: nnx.Rngs):
        self.dense1 = nnx.Linear(width, hidden, dtype=config.dtype, rngs=rngs)
        self.dense2 = nnx.Linear(hidden, width, dtype=config.dtype, rngs=rngs)
        self.gelu = GELUS[config.gelu]

    def __call__(self, x: Array) -> Array:
        """[..., width] -> [..., width]."""
        return self.dense2(self.gelu(self.dense1(x)))


class Block(nnx.Module):
    """One block: x += token_mlp(LN(x)), then x += channel_mlp(LN(x)) (arXiv 2105.01601, eq. 1)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        size = config.mixer_size
        self.norm1 = layer_norm(config, size.width, rngs=rngs)
        self.token_mixing = Mixing(config, config.sequence_length, size.token_mlp_dim, rngs=rngs)
        self.norm2 = layer_norm(config, size.width, rngs=rngs)
        self.channel_mixing = Mixing(config, size.width, size.mlp_dim, rngs=rngs)

    def __call__(
        self,
        x: Array,
        key: Array | None,
        skip_rate: Array | None,
        placement: Placement,
        capture: Collection[str],
    ) -> tuple[Array, dict[str, Array]]:
        """[batch, T, width] -> [batch, T, width]; see `blocks.run`."""
        del capture
        keys = (None,) * 2 if key is None else tuple(jax.random.split(key))

        def mix_tokens(x: Array) -> Array:
            return self.token_mixing(x.swapaxes(1, 2)).swapaxes(1, 2)

        branch = functools.partial(blocks.branch, skip_rate=skip_rate, placement=placement)
        x = placement.constrain(x + branch(self.norm1, mix_tokens, x, keys[0]))
        return x + branch(self.norm2, self.channel_mixing, x, keys[1]), {}


class Mixer(TokenModel):
    """MLP-Mixer. Its images have one size, because tokens are mixed by weights for each token."""

    captured = ("features", "tokens", "layers", "normed_layers")

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config)
        config = self.config
        size = config.mixer_size
        self._add_embedding(3, size.width, rngs)
        self.blocks = blocks.stack(lambda rngs: Block(config, rngs=rngs), size.depth, rngs=rngs)
        self.norm = layer_norm(config, size.width, rngs=rngs)
        self._add_head(size.width, rngs)

    def pool(self, tokens: Array, *, key: Array | None = None) -> Array:
        """See `Model.pool`."""
        del key
        return self.norm(tokens).mean(axis=1)
