"""Axial Vision Transformer (appendix D.6, Figure 13): attention along rows, then along columns.

Each block of a ViT becomes two: one in which a token attends to the tokens of its row, and one in
which it attends to those of its column, each followed by an MLP. So a block has twice the
parameters, and the cost of its attention grows with rows plus columns instead of their product.

The paper leaves open, and here it is so: there is no class token, since it lies in no row; the
features are the mean over the normalised tokens, as with `pooling="gap"` of a ViT; and a row comes
before a column.
"""

from collections.abc import Collection

import jax
from flax import nnx
from jax import Array

from vit_jax.models.attention import Attention
from vit_jax.models.config import ModelConfig
from vit_jax.models.dot_product import Implementation
from vit_jax.models.placement import Placement
from vit_jax.models.vit import BLOCK, Block, ViT, table_of
from vit_jax.parameters import Parameter, nested


def parameters(config: ModelConfig) -> dict[str, Parameter]:
    """Describes the parameters of an axial ViT; `config` must be completed."""
    return table_of(config, {**nested("rows", BLOCK), **nested("columns", BLOCK)})


class RowAttention(Attention):
    """Attention among the tokens of each row of patches."""

    def __init__(self, config: ModelConfig, implementation: Implementation, *, rngs: nnx.Rngs):
        super().__init__(config, implementation, rngs=rngs)
        self.grid = config.grid

    def __call__(
        self, queries: Array, tokens: Array, placement: Placement, pairs: Array | None = None
    ) -> Array:
        """[batch, rows * columns, width] -> the same; queries are the tokens themselves."""
        del queries, pairs
        lines = self._lines(tokens)
        return self._tokens(super().__call__(lines, lines, placement))

    def _lines(self, tokens: Array) -> Array:
        """Tokens [batch, rows * columns, width] as lines [batch * rows, columns, width]."""
        return tokens.reshape(-1, self.grid[1], tokens.shape[-1])

    def _tokens(self, lines: Array) -> Array:
        rows, columns = self.grid
        return lines.reshape(-1, rows * columns, lines.shape[-1])


class ColumnAttention(RowAttention):
    """Attention among the tokens of each column of patches."""

    def _lines(self, tokens: Array) -> Array:
        """Tokens [batch, rows * columns, width] as lines [batch * columns, rows, width]."""
        rows, columns = self.grid
        grid = tokens.reshape(-1, rows, columns, tokens.shape[-1])
        return grid.swapaxes(1, 2).reshape(-1, rows, tokens.shape[-1])

    def _tokens(self, lines: Array) -> Array:
        rows, columns = self.grid
        grid = lines.reshape(-1, columns, rows, lines.shape[-1])
        return grid.swapaxes(1, 2).reshape(-1, rows * columns, lines.shape[-1])


class AxialBlock(nnx.Module):
    """A block of row attention and MLP, then one of column attention and MLP."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.rows = Block(config, RowAttention, rngs=rngs)
        self.columns = Block(config, ColumnAttention, rngs=rngs)

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
        x, _ = self.rows(x, keys[0], skip_rate, placement, ())
        return self.columns(placement.constrain(x), keys[1], skip_rate, placement, ())


class AxialViT(ViT):
    """A Vision Transformer whose blocks attend along rows, then along columns."""

    captured = ("features", "tokens", "layers", "normed_layers")

    @staticmethod
    def _block(config: ModelConfig, rngs: nnx.Rngs) -> nnx.Module:
        return AxialBlock(config, rngs=rngs)

    def _pool(self, tokens: Array, key: Array | None) -> Array:
        del key
        return self.norm(tokens).mean(axis=1)
