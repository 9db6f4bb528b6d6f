"""How a ViT learns where a patch is: position schemes, by the name in `model.positions`.

A scheme of one's own is a subclass of `Positions`, registered by name, in a config file or any
module that is imported before the model is made:

    @register("rows")
    class Rows(Positions):
        def on_patches(self, patches, params, config): ...
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vit_jax.errors import UserError
from vit_jax.models.config import INHERIT, ModelConfig
from vit_jax.parameters import Parameter, Table
from vit_jax.spelling import nearest


class Positions:
    """A scheme without parameters that changes nothing; subclasses override what they need.

    A scheme keeps no state. Its parameters lie among the model's own, under the names that
    `parameters` lists, and in each block, under those that `layer_parameters` lists. Every hook
    gets the parameters of one of the two.
    """

    def check(self, config: ModelConfig) -> None:
        """Checks that the scheme fits the model.

        Raises:
          UserError: it does not.
        """

    def parameters(self, config: ModelConfig) -> Table:
        """Describes the scheme's parameters. Names that a model uses itself are an error."""
        del config
        return {}

    def init(self, config: ModelConfig, rngs: nnx.Rngs) -> dict[str, Array]:
        """Draws the parameters that `parameters` lists, float32."""
        del config, rngs
        return {}

    def layer_parameters(self, config: ModelConfig) -> Table:
        """Describes what each block has of the scheme, without the axis that counts blocks."""
        del config
        return {}

    def layer_init(self, config: ModelConfig, rngs: nnx.Rngs) -> dict[str, Array]:
        """Draws the parameters of one block that `layer_parameters` lists, float32."""
        del config, rngs
        return {}

    def on_patches(self, patches: Array, params: Mapping[str, Array], config: ModelConfig) -> Array:
        """Patch embeddings [batch, rows * columns, width], before other tokens join them."""
        del params, config
        return patches

    def on_tokens(self, tokens: Array, params: Mapping[str, Array], config: ModelConfig) -> Array:
        """Tokens [batch, T, width]: a class token, if there is one, and patches; no registers."""
        del params, config
        return tokens

    def before_layers(
        self, tokens: Array, params: Mapping[str, Array], config: ModelConfig
    ) -> Array:
        """All tokens [batch, T, width] before each block, by the model's own parameters."""
        del params, config
        return tokens

    def on_layer(self, tokens: Array, params: Mapping[str, Array], config: ModelConfig) -> Array:
        """All tokens [batch, T, width] before a block, by the parameters of that block."""
        del params, config
        return tokens

    def pairs(self, params: Mapping[str, Array], config: ModelConfig) -> Array | None:
        """Embeddings of the pairs of a query and a key, by the parameters of a block.

        Returns:
          [T, T, head size]. Their product with the queries is added to that of the keys, before it
          is divided by the root of the head's size (eq. 6). None adds nothing.
        """
        del params, config
        return None

    def macs(self, config: ModelConfig) -> int:
        """Multiply-adds of one image in each block."""
        del config
        return 0


_SCHEMES: dict[str, Positions] = {}


def register(name: str) -> Callable[[type[Positions]], type[Positions]]:
    """Returns a class decorator that makes a scheme known as `model.positions=NAME`.

    A class that is defined again, as by a config file that is read twice, replaces the first.

    Raises:
      ValueError: a scheme from another place has this name.
    """

    def add(cls: type[Positions]) -> type[Positions]:
        known = type(_SCHEMES[name]) if name in _SCHEMES else cls
        if name == INHERIT or known.__qualname__ != cls.__qualname__:
            raise ValueError(f"positions {name!r} are taken; register {cls.__name__} as another")
        _SCHEMES[name] = cls()
        return cls

    return add


def scheme(config: ModelConfig) -> Positions:
    """The scheme of a model; one that inherits gets that of a model without weights.

    Raises:
      UserError: no scheme has this name.
    """
    name = "learned" if config.positions == INHERIT else config.positions
    if name not in _SCHEMES:
        raise UserError(f"positions: no scheme {name!r}{nearest(name, [INHERIT, *_SCHEMES])}")
    return _SCHEMES[name]


register("none")(Positions)


@register("learned")
class Learned(Positions):
    """An embedding for each patch and for the class token (section 3.1, eq. 1)."""

    def parameters(self, config: ModelConfig) -> Table:
        """`pos_embedding` [1, positions, width]."""
        axes = ("batch", "positions", "width")
        return {"pos_embedding": Parameter(axes, "embedding", "position")}

    def init(self, config: ModelConfig, rngs: nnx.Rngs) -> dict[str, Array]:
        """Normal, with deviation 0.02."""
        positions = config.sequence_length - config.registers
        draw = nnx.initializers.normal(0.02)
        return {"pos_embedding": draw(rngs.params(), (1, positions, config.size.width))}

    def on_tokens(self, tokens: Array, params: Mapping[str, Array], config: ModelConfig) -> Array:
        """Adds the embeddings."""
        return tokens + params["pos_embedding"].astype(tokens.dtype)


@register("sincos2d")
class SinCos2D(Positions):
    """Fixed 2-D sine-cosine embeddings on the patches (see `sincos2d`)."""

    def check(self, config: ModelConfig) -> None:
        """Needs a width that is a multiple of 4."""
        if config.size.width % 4:
            raise UserError(
                f"positions='sincos2d' needs a width that is a multiple of 4, not "
                f"{config.size.width}"
            )

    def on_patches(self, patches: Array, params: Mapping[str, Array], config: ModelConfig) -> Array:
        """Adds the embeddings."""
        return patches + sincos2d(config.grid, config.size.width).astype(patches.dtype)


def sincos2d(grid: tuple[int, int], width: int, temperature: float = 10_000.0) -> Array:
    """Fixed 2-D sine-cosine embeddings (Better plain ViT baselines, arXiv 2205.01580).

    A quarter of the channels each for sin x, cos x, sin y and cos y at `width / 4` frequencies,
    `temperature ** -(i / (width / 4 - 1))`.

    Args:
      grid: rows and columns of patches.
      width: channels, a multiple of 4.

    Returns:
      float32 [1, rows * columns, width], values in [-1, 1].
    """
    rows, columns = grid
    y, x = np.mgrid[:rows, :columns]
    quarter = width // 4
    omega = temperature ** -(jnp.arange(quarter) / max(quarter - 1, 1))
    x_angle = x.reshape(-1, 1) * omega
    y_angle = y.reshape(-1, 1) * omega
    waves = [jnp.sin(x_angle), jnp.cos(x_angle), jnp.sin(y_angle), jnp.cos(y_angle)]
    return jnp.concatenate(waves, axis=1)[None]
