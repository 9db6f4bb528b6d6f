"""Geometry of images on the host: resizing, cropping, moving. Sizes are (height, width)."""

import math

from numpy.random import Generator
from PIL import Image

from vit_jax.data.config import AffineConfig
from vit_jax.preprocessing import PreprocessingConfig

# Height and width in pixels.
Size = tuple[int, int]
# Left, upper, right and lower edge in pixels, in Pillow's order.
Box = tuple[int, int, int, int]

_ASPECT = (3 / 4, 4 / 3)
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize(image: Image.Image, size: Size, preprocessing: PreprocessingConfig) -> Image.Image:
    """Resizes to `size` with half-pixel centres."""
    width_height = size[::-1]
    if width_height == image.size:
        return image
    resample = _RESAMPLE[preprocessing.interpolation]
    if preprocessing.antialias:
        return image.resize(width_height, resample)
    # Pillow's `resize` always antialiases and its `transform` never does. The latter cuts off
    # fractions, so that values are half a level of 255 below the exact ones on average.
    extent = (0, 0, *image.size)
    return image.transform(width_height, Image.Transform.EXTENT, extent, Image.Resampling.BILINEAR)


def covering(image: Image.Image, size: Size, short_side: int) -> Size:
    """The size to which an image is resized, in its own aspect, before a crop of `size`.

    It is the smallest that covers `size` after that was enlarged so that its shorter side is
    `short_side` pixels. If `size` is square, the image's shorter side becomes `short_side`.
    """
    height, width = size
    scale = short_side / min(size) * max(height / image.height, width / image.width)
    # The longer side is rounded down as in torchvision; the small number undoes rounding noise.
    return int(image.height * scale + 1e-6), int(image.width * scale + 1e-6)


def central_crop(image: Image.Image, size: Size) -> Image.Image:
    """The box of `size` in the middle of the image."""
    height, width = size
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def random_box(image: Image.Image, rng: Generator, *, size: Size) -> Image.Image:
    """A box of `size`, at any place in the image with equal probability."""
    height, width = size
    top = int(rng.integers(0, image.height - height, endpoint=True))
    left = int(rng.integers(0, image.width - width, endpoint=True))
    return image.crop((left, top, left + width, top + height))


def inception_crop(image: Image.Image, rng: Generator, *, area: tuple[float, float]) -> Image.Image:
    """The box that `sample_crop` draws."""
    return image.crop(sample_crop(image.height, image.width, area, rng))


def sample_crop(height: int, width: int, area: tuple[float, float], rng: Generator) -> Box:
    """A random box with a share of the image's area in `area` and an aspect in 3/4 to 4/3.

    Drawn as in `tf.image.sample_distorted_bounding_box`, which the paper's code uses: first the
    aspect, uniformly, then the height, uniformly among those that give an allowed area. If there
    is no such box, as in a very long image, the result is the whole image.
    """
    low, high = area[0] * height * width, area[1] * height * width
    for _ in range(100):
        aspect = rng.uniform(*_ASPECT)
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
    """Rotates, scales and shifts an image about its centre. What comes into view is black."""
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
