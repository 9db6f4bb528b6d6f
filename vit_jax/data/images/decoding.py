"""From encoded bytes to upright 8-bit RGB images."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


class ImageError(Exception):
    """The bytes are not an image that can be read; the message states why."""


def decode(data: bytes) -> Image.Image:
    """Encoded bytes to an upright 8-bit RGB image. The first frame of an animation is taken.

    An image with more pixels than Pillow's limit against decompression bombs is refused before it
    is decoded.

    Raises:
      ImageError: the bytes cannot be read, for whatever reason.
    """
    try:
        return upright_rgb(Image.open(io.BytesIO(data)))
    except UnidentifiedImageError as error:  # Its message is about an object in memory.
        raise ImageError("cannot read the image (not in a known format)") from error
    except Exception as error:  # Decoders raise nearly anything on broken bytes.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"cannot read the image ({reason})") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB.

    An alpha channel is dropped, 16-bit grey is scaled, and the EXIF orientation applied.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = (np.asarray(image) / 257).round().clip(0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    image.info.pop("transparency", None)  # Pillow would warn that it is lost.
    return image.convert("RGB")
