"""The position embeddings of Table 8 (appendix D.4), besides none and 1-D ones at the stem.

1-D embeddings are one for each token in the order of the sequence, the class token's too. 2-D ones
are two tables of half the width, for the rows and for the columns of patches, concatenated. Each is
added at the stem, before every block from a table of the block's own, or before every block from
one table that all share. Relative ones are an embedding for each offset of two patches.

The paper leaves open, and here it is so: with 2-D and relative positions the class token has none,
and its pairs with patches add nothing to the scores; registers have none in any form; each block
has relative embeddings of its own, which its heads share, as in Shaw et al. (arXiv 1803.02155).
"""

from collections.abc import Mapping
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.positions import Learned, Positions, register
from vit_jax.parameters import Parameter, Table

T = TypeVar("T")

_draw = nnx.initializers.normal(0.02)
_2D = ("row_embedding", "column_embedding")


@register("learned_shared")
class LearnedShared(Positions):
    """1-D embeddings that are added before every block."""

    def parameters(self, config: ModelConfig) -> Table:
        """`shared_pos_embedding` [1, positions, width]."""
        return _renamed(Learned().parameters(config), "shared_")

    def init(self, config: ModelConfig, rngs: nnx.Rngs) -> dict[str, Array]:
        """Normal, with deviation 0.02."""
        return _renamed(Learned().init(config, rngs), "shared_")

    def before_layers(
        self, tokens: Array, params: Mapping[str, Array], config: ModelConfig
    ) -> Array:
        """Adds the embeddings."""
        return _added(tokens, params["shared_pos_embedding"], 0)


@register("learned_layers")
class LearnedLayers(Positions):
    """1-D embeddings of each block's own, which are added before it."""

    def layer_parameters(self, config: ModelConfig) -> Table:
        """`blocks/pos_embedding` [1, positions, width] in each block."""
        axes = ("batch", "positions", "width")
        return {"pos_embedding": Parameter(axes, "embedding", "block")}

    def layer_init(self, config: ModelConfig, rngs: nnx.Rngs) -> dict[str, Array]:
        """Normal, with deviation 0.02."""
        return Learned().init(config, rngs)

    def on_layer(self, tokens: Array, params: Mapping[str, Array], config: ModelConfig) -> Array:
        """Adds the embeddings."""
        return _added(tokens, params["pos_embedding"], 0)


class _TwoTables(Positions):
    def check(self, config: ModelConfig) -> None:
        """Needs an even width."""
        if config.size.width % 2:
            raise UserError(
                f"positions={config.positions!r} has tables of half the width, so the width must "
                f"be even, not {config.size.width}"
            )


@register("learned2d")
class Learned2D(_TwoTables):
    """2-D embeddings at the stem."""

    def parameters(self, config: ModelConfig) -> Table:
        """`row_embedding` [rows, width / 2] and `column_embedding` [columns, width / 2]."""
        return {name: Parameter(("positions", "width"), "embedding", "position") for name in _2D}

    def init(self, config: ModelConfig, rngs: nnx.Rngs) -> dict[str, Array]:
        """Normal, with deviation 0.02."""
        return {
            name: _draw(rngs.params(), (side, config.size.width // 2))
            for name, side in zip(_2D, config.grid, strict=True)
        }

    def on_patches(self, patches: Array, params: Mapping[str, Array], config: ModelConfig) -> Array:
        """Adds the embeddings."""
        return _added(patches, _grid(params), 0)


@register("learned2d_shared")
class Learned2DShared(_TwoTables):
    """2-D embeddings that are added before every block."""

    def parameters(self, config: ModelConfig) -> Table:
        """`shared_row_embedding` and `shared_column_embedding`, as `Learned2D`'s."""
        return _renamed(Learned2D().parameters(config), "shared_")

    def init(self, config: ModelConfig, rngs: nnx.Rngs) -> dict[str, Array]:
        """Normal, with deviation 0.02."""
        return _renamed(Learned2D().init(config, rngs), "shared_")

    def before_layers(
        self, tokens: Array, params: Mapping[str, Array], config: ModelConfig
    ) -> Array:
        """Adds the embeddings to the patches."""
        return _added(tokens, _grid(params, "shared_"), int(config.has_class_token))


@register("learned2d_layers")
class Learned2DLayers(_TwoTables):
    """2-D embeddings of each block's own, which are added before it."""

    def layer_parameters(self, config: ModelConfig) -> Table:
        """`blocks/row_embedding` and `blocks/column_embedding`, as `Learned2D`'s in each block."""
        return {name: Parameter(("positions", "width"), "embedding", "block") for name in _2D}

    def layer_init(self, config: ModelConfig, rngs: nnx.Rngs) -> dict[str, Array]:
        """Normal, with deviation 0.02."""
        return Learned2D().init(config, rngs)

    def on_layer(self, tokens: Array, params: Mapping[str, Array], config: ModelConfig) -> Array:
        """Adds the embeddings to the patches."""
        return _added(tokens, _grid(params), int(config.has_class_token))


@register("relative")
class Relative(Positions):
    """1-D relative attention: the query times the embedding of the offset joins the scores."""

    def check(self, config: ModelConfig) -> None:
        """Fused kernels take no scores of one's own."""
        if config.attention != "xla":
            raise UserError(
                f"positions='relative' adds to the scores of attention, which the fused kernel of "
                f"attention={config.attention!r} keeps to itself; use attention='xla'"
            )

    def layer_parameters(self, config: ModelConfig) -> Table:
        """`blocks/offset_embedding` [2 * patches - 1, head size] in each block."""
        return {"offset_embedding": Parameter(("positions", "head_size"), "embedding", "block")}

    def layer_init(self, config: ModelConfig, rngs: nnx.Rngs) -> dict[str, Array]:
        """Normal, with deviation 0.02."""
        rows, columns = config.grid
        shape = (2 * rows * columns - 1, config.size.width // config.size.num_heads)
        return {"offset_embedding": _draw(rngs.params(), shape)}

    def pairs(self, params: Mapping[str, Array], config: ModelConfig) -> Array:
        """The embeddings of the offsets, query less key, of patches in the order of the sequence.

        Zeros for pairs with a class token or a register.
        """
        rows, columns = config.grid
        patches, first = rows * columns, int(config.has_class_token)
        place = np.arange(patches)
        # The last row is the zeros.
        offsets = np.full((config.sequence_length,) * 2, 2 * patches - 1)
        of_patches = slice(first, first + patches)
        offsets[of_patches, of_patches] = place[:, None] - place + patches - 1
        return jnp.pad(params["offset_embedding"], ((0, 1), (0, 0)))[offsets]

    def macs(self, config: ModelConfig) -> int:
        """As many as the content's scores."""
        return config.sequence_length**2 * config.size.width


def _renamed(values: Mapping[str, T], prefix: str) -> dict[str, T]:
    return {f"{prefix}{name}": value for name, value in values.items()}


def _grid(params: Mapping[str, Array], prefix: str = "") -> Array:
    """The two tables as embeddings [1, rows * columns, width] of patches, row by row."""
    rows, columns = (params[f"{prefix}{name}"] for name in _2D)
    (height, half), width = rows.shape, len(columns)
    shape = (height, width, half)
    both = [jnp.broadcast_to(rows[:, None], shape), jnp.broadcast_to(columns, shape)]
    return jnp.concatenate(both, axis=-1).reshape(1, height * width, 2 * half)


def _added(tokens: Array, embeddings: Array, first: int) -> Array:
    """Tokens [batch, T, width] plus embeddings [1, n, width] from the token number `first` on."""
    rest = tokens.shape[1] - first - embeddings.shape[1]
    if first or rest:
        embeddings = jnp.pad(embeddings, ((0, 0), (first, rest), (0, 0)))
    return tokens + embeddings.astype(tokens.dtype)
