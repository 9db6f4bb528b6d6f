"""A model as StableHLO, through `jax.export`.

`jax.export.deserialize` reads it where this package is not installed, on a CPU, GPU or TPU.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, export

from vit_jax.models.model import Model
from vit_jax.preprocessing import normalize

_PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(model: Model) -> bytes:
    """Returns a serialized function from images to logits, with the parameters inside.

    It maps uint8 [batch, height, width, 3], resized and cropped but not normalised, to float32
    logits [batch, num_classes], for any batch size.
    """
    preprocessing = model.config.preprocessing
    assert preprocessing is not None
    graphdef, params = nnx.split(model)

    def serve(images: Array) -> Array:
        return nnx.merge(graphdef, params)(normalize(images, preprocessing))

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *model.config.input_size, 3), jnp.uint8)
    return bytes(export.export(jax.jit(serve), platforms=_PLATFORMS)(images).serialize())
