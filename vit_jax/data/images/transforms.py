"""Host image operations: decode, crop, resize. Everything random comes from a given generator."""

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageOps, UnidentifiedImageError

from vit_jax.data.config import AffineConfig, DataConfig
from vit_jax.data.images.erase import random_erase
from vit_jax.data.images.randaugment import rand_augment
from vit_jax.preprocessing import PreprocessingConfig

# Left, upper, right, lower, in pixels, as Pillow has it.
Box = tuple[int, int, int, int]
# Height and width in pixels.
Size = tuple[int, int]

ASPECT = (3 / 4, 4 / 3)
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class ImageError(Exception):
    """The bytes are not an image that can be read; the message says why."""


def decode(data: bytes) -> Image.Image:
    """Encoded bytes to an upright 8-bit RGB image; of an animation its first frame.

    An image of more pixels than Pillow's limit against decompression bombs is refused before
    decoding.

    Raises:
      ImageError: for whatever makes the bytes unreadable.
    """
    try:
        return upright_rgb(Image.open(io.BytesIO(data)))
    except UnidentifiedImageError as error:  # Its message is about an object in memory.
        raise ImageError("cannot read the image (not in a known format)") from error
    except Exception as error:  # Decoders raise nearly anything on broken bytes.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"cannot read the image ({reason})") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image in 8-bit RGB.

    An alpha channel is dropped, 16-bit grey is scaled, and the EXIF orientation applied.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = (np.asarray(image) / 257).round().clip(0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    image.info.pop("transparency", None)  # Pillow would warn that it is lost.
    return image.convert("RGB")


@dataclass(frozen=True)
class TrainTransform:
    """Encoded bytes to a training image, uint8 [height, width, 3] of `size`.

    Decodes, moves and crops at random as the config says, resizes, augments and erases.
    """

    size: Size
    preprocessing: PreprocessingConfig
    config: DataConfig

    def __call__(self, data: bytes, rng: Generator) -> np.ndarray:
        """Raises `ImageError` for bytes that cannot be read."""
        image = decode(data)
        if self.config.affine is not None:
            image = random_affine(image, rng, self.config.affine)
        if self.config.crop == "inception":
            box = sample_crop(image.height, image.width, self.config.crop_area, rng)
            image = image.crop(box)
        if self.config.crop_side is not None:
            image = self._crop_resized(image, rng, self.config.crop_side)
        else:
            image = resize(image, self.size, self.preprocessing)
        if self.config.randaugment is not None:
            image = rand_augment(image, rng, self.config.randaugment)
        return random_erase(np.asarray(image), rng, self.config.erase)

    def _crop_resized(self, image: Image.Image, rng: Generator, side: int) -> Image.Image:
        """A random box of the resized image; squashed, as BiT does, or of its own aspect."""
        height, width = self.size
        if self.config.crop == "resize":
            enlarge = side / min(self.size)
            resized = round(height * enlarge), round(width * enlarge)
        else:
            resized = covering(image, self.size, side)
        image = resize(image, resized, self.preprocessing)
        top, left = (
            int(rng.integers(0, whole - part, endpoint=True))
            for whole, part in zip(resized, self.size, strict=True)
        )
        return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class EvalTransform:
    """Encoded bytes to an evaluation image, uint8 [height, width, 3] of `size`."""

    size: Size
    preprocessing: PreprocessingConfig

    def __call__(self, data: bytes, rng: Generator | None = None) -> np.ndarray:
        """Raises `ImageError` for bytes that cannot be read."""
        del rng  # Nothing here is random.
        return self.fit(decode(data))

    def fit(self, image: Image.Image) -> np.ndarray:
        """Resizes and crops an RGB image."""
        if self.preprocessing.resize == "squash":
            return np.asarray(resize(image, self.size, self.preprocessing))
        height, width = self.size
        resized = covering(image, self.size, self.preprocessing.short_side or min(self.size))
        image = resize(image, resized, self.preprocessing)
        top, left = round((resized[0] - height) / 2), round((resized[1] - width) / 2)
        return np.asarray(image.crop((left, top, left + width, top + height)))


def covering(image: Image.Image, size: Size, short_side: int) -> Size:
    """The image's size, scaled to the smallest that covers `size` as its shorter side grows.

    Of a square `size`, the image's shorter side becomes `short_side`, in pixels.
    """
    height, width = size
    scale = short_side / min(size) * max(height / image.height, width / image.width)
    # Floors the longer side as torchvision does; the small number undoes rounding noise.
    return int(image.height * scale + 1e-6), int(image.width * scale + 1e-6)


def resize(image: Image.Image, size: Size, preprocessing: PreprocessingConfig) -> Image.Image:
    """Resizes to (height, width) with half-pixel centres."""
    width_height = size[::-1]
    if width_height == image.size:
        return image
    resample = _RESAMPLE[preprocessing.interpolation]
    if preprocessing.antialias:
        return image.resize(width_height, resample)
    # Pillow's resize always antialiases; its transforms never do. They cut off fractions, so that
    # values are half a level of 255 below the exact ones on average.
    extent = (0, 0, *image.size)
    return image.transform(width_height, Image.Transform.EXTENT, extent, Image.Resampling.BILINEAR)


def sample_crop(height: int, width: int, area: tuple[float, float], rng: Generator) -> Box:
    """A random box with a share of the image's area in `area` and an aspect in 3/4 to 4/3.

    Drawn as `tf.image.sample_distorted_bounding_box`, which the paper's code uses, draws it: the
    aspect uniformly, then the height uniformly among those that give an allowed area. Where no
    such box exists, as in a very long image, it is the whole image.
    """
    low, high = area[0] * height * width, area[1] * height * width
    for _ in range(100):
        aspect = rng.uniform(*ASPECT)
        tallest = min(round(math.sqrt(high / aspect)), height, int((width + 0.5) / aspect))
        lowest = min(round(math.sqrt(low / aspect)), tallest)
        box_height = int(rng.integers(lowest, tallest, endpoint=True))
        box_width = round(box_height * aspect)
        if 0 < box_width <= width and low <= box_height * box_width <= high:
            top = int(rng.integers(0, height - box_height, endpoint=True))
            left = int(rng.integers(0, width - box_width, endpoint=True))
            return left, top, left + box_width, top + box_height
    return 0, 0, width, height


def random_affine(image: Image.Image, rng: Generator, config: AffineConfig) -> Image.Image:
    """Rotates, scales and shifts about the centre; what comes into view is black."""
    angle = math.radians(rng.uniform(-config.rotate, config.rotate))
    scale = 1 + rng.uniform(-config.scale, config.scale)
    shift_x = rng.uniform(-config.shift, config.shift) * image.width
    shift_y = rng.uniform(-config.shift, config.shift) * image.height
    # Pillow wants the map from output to input: undo the shift, then the rotation and scale.
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    center_x, center_y = image.width / 2, image.height / 2
    from_x, from_y = center_x + shift_x, center_y + shift_y
    matrix = (
        *(cos, sin, center_x - cos * from_x - sin * from_y),
        *(-sin, cos, center_y + sin * from_x - cos * from_y),
    )
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
