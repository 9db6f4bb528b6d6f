"""Geometry of images on the host: resizing, cropping, moving. Sizes are (height, width)."""

import math

import numpy as np
from numpy.random import Generator
from PIL import Image

from vit_jax.data.config import AffineConfig
from vit_jax.data.images.bilinear import resize_bilinear
from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.jpeg import Box
from vit_jax.preprocessing import PreprocessingConfig

# Height and width in pixels.
Size = tuple[int, int]

_ASPECT = (np.float32(3 / 4), np.float32(4 / 3))
_ATTEMPTS = 100
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize(pixels: np.ndarray, size: Size, preprocessing: PreprocessingConfig) -> np.ndarray:
    """Resizes uint8 [height, width, 3] to `size` with half-pixel centres."""
    if pixels.shape[:2] == size:
        return pixels
    if preprocessing.antialias:
        resample = _RESAMPLE[preprocessing.interpolation]
        return np.asarray(Image.fromarray(pixels).resize(size[::-1], resample))
    return np.asarray(resize_bilinear(Image.fromarray(pixels), size))


def covering(pixels: np.ndarray, size: Size, short_side: int) -> Size:
    """The size to which an image is resized, in its own aspect, before a crop of `size`.

    It is the smallest that covers `size` after that was enlarged so that its shorter side is
    `short_side` pixels. If `size` is square, the image's shorter side becomes `short_side`.
    """
    (old_height, old_width), (height, width) = pixels.shape[:2], size
    scale = short_side / min(size) * max(height / old_height, width / old_width)
    # The longer side is rounded down as in torchvision; the small number undoes rounding noise.
    return int(old_height * scale + 1e-6), int(old_width * scale + 1e-6)


def central_crop(pixels: np.ndarray, size: Size) -> np.ndarray:
    """The box of `size` in the middle of an image."""
    top, left = (round((old - new) / 2) for old, new in zip(pixels.shape, size, strict=False))
    return pixels[top : top + size[0], left : left + size[1]]


def without_border(height: int, width: int, border: int) -> Box:
    """An image less some pixels of each side.

    Raises:
      ImageError: nothing would be left.
    """
    if min(height, width) <= 2 * border:
        raise ImageError(
            f"cannot read the image ({width} x {height} pixels, of which a border of {border} is "
            "cut)"
        )
    return border, border, width - border, height - border


def random_box(pixels: np.ndarray, rng: Generator, *, size: Size) -> np.ndarray:
    """A box of `size`, at any place in an image with equal probability."""
    (old_height, old_width), (height, width) = pixels.shape[:2], size
    top = int(rng.integers(0, old_height - height, endpoint=True))
    left = int(rng.integers(0, old_width - width, endpoint=True))
    return pixels[top : top + height, left : left + width]


def sample_crop(height: int, width: int, area: tuple[float, float], rng: Generator) -> Box:
    """A random box with a share of the image's area in `area` and an aspect in 3/4 to 4/3.

    This is `tf.image.sample_distorted_bounding_box`, which the paper's code uses, with its rounding
    in float32 (`sample_distorted_bounding_box_op.cc` in TensorFlow 2.16): first the aspect,
    uniformly, then the height, uniformly among those that give an allowed area. Rounding may leave
    a box just outside the allowed areas; one row more or less is tried then. As there, a box that
    is smaller than the image along an axis never lies at the last place of that axis. If 100
    aspects give no box, as in a very long image, the result is the whole image.
    """
    low, high = (np.float32(share) * np.float32(width) * np.float32(height) for share in area)
    for _ in range(_ATTEMPTS):
        aspect = rng.random(dtype=np.float32) * (_ASPECT[1] - _ASPECT[0]) + _ASPECT[0]
        size = _sample_size(height, width, low, high, aspect, rng)
        if size is not None:
            box_height, box_width = size
            top, left = _offset(height, box_height, rng), _offset(width, box_width, rng)
            return left, top, left + box_width, top + box_height
    return 0, 0, width, height


def _sample_size(
    height: int, width: int, low: np.float32, high: np.float32, aspect: np.float32, rng: Generator
) -> Size | None:
    """A box of an aspect with an area in pixels from `low` to `high`; None if there is none."""

    def width_of(box_height: int) -> int:
        return round(np.float32(box_height) * aspect)

    lowest, tallest = (round(np.sqrt(limit / aspect)) for limit in (low, high))
    if width_of(tallest) > width:
        tallest = int((width + 0.5 - 1e-7) / float(aspect))
        tallest -= width_of(tallest) > width
    tallest = min(tallest, height)
    box_height = min(lowest, tallest)
    if box_height < tallest:
        box_height = int(rng.integers(box_height, tallest, endpoint=True))
    if box_height * width_of(box_height) < low:
        box_height += 1
    if box_height * width_of(box_height) > high:
        box_height -= 1
    box_width = width_of(box_height)
    fits = 0 < box_height <= height and 0 < box_width <= width
    return (box_height, box_width) if fits and low <= box_height * box_width <= high else None


def _offset(side: int, box_side: int, rng: Generator) -> int:
    return int(rng.integers(side - box_side)) if box_side < side else 0


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
