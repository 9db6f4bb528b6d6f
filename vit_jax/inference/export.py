"""A model as one file for serving: StableHLO, through `jax.export`.

The file needs no vit_jax where it runs: `jax.export.deserialize` reads it, on a CPU, GPU or TPU.
"""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, export

from vit_jax.atomic import write_together
from vit_jax.errors import UserError
from vit_jax.models.model import Model
from vit_jax.preprocessing import normalize
from vit_jax.schema import to_dict

PLATFORMS = ("cpu", "cuda", "tpu")


def export_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Writes a function from images to logits, with its parameters inside.

    It maps uint8 [batch, height, width, 3], resized and cropped but not normalised, to float32
    logits [batch, num_classes], for any batch size. `NAME.json` beside it holds the model with its
    preprocessing, the names of the classes and the loss, which says how logits become
    probabilities.

    Raises:
      UserError: `path` does not end in `.stablehlo`.
    """
    path = Path(path)
    if path.suffix != ".stablehlo":
        raise UserError(f"{path}: an exported model is written as .stablehlo; choose such a name")
    preprocessing = model.config.preprocessing
    assert preprocessing is not None
    graphdef, params = nnx.split(model)

    def serve(images: Array) -> Array:
        return nnx.merge(graphdef, params)(normalize(images, preprocessing))

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *model.config.input_size, 3), jnp.uint8)
    exported = export.export(jax.jit(serve), platforms=PLATFORMS)(images)
    description = {
        "layout": "stablehlo",
        "model": to_dict(model.config),
        "class_names": None if model.class_names is None else list(model.class_names),
        "loss": model.loss,
    }
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_together(
        {
            path.with_suffix(".json"): lambda file: file.write(text.encode()),
            path: lambda file: file.write(exported.serialize()),
        }
    )
