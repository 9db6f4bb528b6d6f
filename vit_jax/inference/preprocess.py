"""Makes images what a model's weights expect."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.jpeg import decode_array
from vit_jax.data.images.pixels import upright_rgb
from vit_jax.data.images.transforms import EvalTransform
from vit_jax.data.sources.reading import read_image_file
from vit_jax.errors import UserError
from vit_jax.models.model import Model
from vit_jax.preprocessing import normalize

# An opened image, its pixels as uint8 [height, width, 3], or the path of a file.
AnyImage = Image.Image | np.ndarray | str | os.PathLike[str]


def preprocess(images: Sequence[AnyImage], model: Model, *, normalized: bool = True) -> np.ndarray:
    """Resizes, crops and normalises images as the model was trained to see them in evaluation.

    Args:
      images: opened images, uint8 arrays [height, width, 3], or paths. Sizes may differ.
      normalized: False leaves out the last step, as exported programs want it: they normalise.

    Returns:
      float32 [batch, height, width, 3], ready for `model(images)`; not normalised, uint8 pixels
      from 0 to 255 of the same shape.

    Raises:
      UserError: a file cannot be read, or an array has another type or shape.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        raise UserError("preprocess takes a list of images; write [image]")
    config = model.config
    assert config.preprocessing is not None
    transform = EvalTransform(config.input_size, config.preprocessing)
    fitted = np.stack([transform.fit(_open(image)) for image in images])
    return normalize(fitted, config.preprocessing) if normalized else fitted


def _open(image: AnyImage) -> np.ndarray:
    if isinstance(image, Image.Image):
        try:
            return np.asarray(upright_rgb(image))
        except ImageError as error:
            raise UserError(str(error)) from error
        except OSError as error:  # Pillow reads pixels late.
            raise UserError(
                f"cannot read the image ({error}); download or copy it again"
            ) from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UserError(
                f"an image array must be uint8 [height, width, 3], not {image.dtype} "
                f"{list(image.shape)}"
            )
        return image
    try:
        return decode_array(read_image_file(os.path.expanduser(image)))
    except ImageError as error:
        raise UserError(f"{image}: {error}") from error
