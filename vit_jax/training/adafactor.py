"""Adafactor as "Scaling Vision Transformers" modifies it (arXiv 2106.04560, section 3.4)."""

import jax.numpy as jnp
import optax
from jax import Array

# The shorter side of the smallest matrix whose second moment is factored, as in big_vision.
SMALLEST_FACTORED = 32


def scale_by_adafactor(b1: float, b2: float, dtype: jnp.dtype) -> optax.GradientTransformation:
    """A second moment of row and column means, and a first moment of what it scales.

    The second moment of a matrix g is kept as the running means of g² over its longest axis and
    over its second longest, R and C; its estimate is R C / mean(R) (Adafactor, arXiv 1804.04235,
    algorithm 4). Further axes, such as a kernel's heads, have rows and columns of their own.
    Matrices with a side below 32, and vectors, keep it whole. Its decay in step t = 1, 2, ... is
    1 - t^-0.8, at most `b2`. The first moment is not corrected for its start at zero. Rates are
    relative to nothing, and updates are not clipped.

    Args:
      b1: decay of the first moment.
      b2: largest decay of the second moment.
      dtype: of the first moment.
    """

    def decay(step: Array, exponent: float) -> Array:
        return jnp.minimum(b2, 1 - (step + 1.0) ** -exponent)

    return optax.chain(
        optax.scale_by_factored_rms(
            decay_rate=0.8, min_dim_size_to_factor=SMALLEST_FACTORED, decay_rate_fn=decay
        ),
        optax.ema(b1, debias=False, accumulator_dtype=dtype),
    )
