"""From encoded bytes to the images of a batch, for training and for evaluation.

All of it happens on the host. Whatever is random is drawn from a given generator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from PIL import Image

from vit_jax.data.config import DataConfig
from vit_jax.data.images.color_jitter import color_jitter
from vit_jax.data.images.crops import resize_crop
from vit_jax.data.images.erase import random_erase
from vit_jax.data.images.geometry import (
    Size,
    central_crop,
    covering,
    random_affine,
    random_box,
    resize,
    sample_crop,
    without_border,
)
from vit_jax.data.images.jpeg import crop, decode_array
from vit_jax.data.images.randaugment import rand_augment
from vit_jax.preprocessing import PreprocessingConfig

Config = TypeVar("Config")
# One step from an image to the next, both uint8 [height, width, 3] that are not written to. It must
# be picklable: data workers get a copy.
Operation = Callable[[np.ndarray, Generator], np.ndarray]


@dataclass(frozen=True)
class TrainTransform:
    """Encoded bytes to a training image, uint8 [height, width, 3]: operations one by one.

    Attributes:
      crop_area: if set, only the box that `sample_crop` draws is decoded, before all operations.
    """

    operations: tuple[Operation, ...]
    crop_area: tuple[float, float] | None = None

    def __call__(self, data: bytes, rng: Generator) -> np.ndarray:
        """Raises `ImageError` for bytes that cannot be read."""
        part = None
        if self.crop_area is not None:
            part = partial(sample_crop, area=self.crop_area, rng=rng)
        pixels = decode_array(data, part)
        for operation in self.operations:
            pixels = operation(pixels, rng)
        return pixels


def make_transform(
    size: Size, preprocessing: PreprocessingConfig, config: DataConfig
) -> TrainTransform:
    """The training transform of a config: moves, crops, augments and erases, in this order.

    Args:
      size: height and width of the result in pixels.
    """
    operations: list[Operation] = []
    # A crop of the image as it is stored, and not after a movement.
    crops_first = config.crop == "inception" and config.affine is None
    if config.affine is not None:
        operations.append(partial(_by_pillow, random_affine, config.affine))
        if config.crop == "inception":
            operations.append(partial(_inception_crop, area=config.crop_area))
    operations += _resizing(size, preprocessing, config)
    if config.color_jitter is not None:
        operations.append(partial(_by_pillow, color_jitter, config.color_jitter))
    if config.randaugment is not None:
        operations.append(partial(_by_pillow, rand_augment, config.randaugment))
    if config.erase > 0:
        operations.append(partial(random_erase, probability=config.erase))
    return TrainTransform(tuple(operations), config.crop_area if crops_first else None)


def _resizing(
    size: Size, preprocessing: PreprocessingConfig, config: DataConfig
) -> tuple[Operation, ...]:
    """The operations that lead to an image of `size`, less an Inception crop."""
    match config.crop:
        case "none":
            return (partial(_resize, size=size, preprocessing=preprocessing),)
        case "inception":
            return (partial(_resize_crop, size=size, preprocessing=preprocessing),)
        case "resize":
            assert config.crop_side is not None
            enlarge = config.crop_side / min(size)
            enlarged = round(size[0] * enlarge), round(size[1] * enlarge)
            squash = partial(_resize, size=enlarged, preprocessing=preprocessing)
            return squash, partial(random_box, size=size)
        case "short_side":
            assert config.crop_side is not None
            cover = partial(
                _cover, size=size, short_side=config.crop_side, preprocessing=preprocessing
            )
            return cover, partial(random_box, size=size)


@dataclass(frozen=True)
class EvalTransform:
    """Encoded bytes to an evaluation image, uint8 [height, width, 3] of `size`.

    Attributes:
      border: pixels that are cut from each side of the image before anything else.
    """

    size: Size
    preprocessing: PreprocessingConfig
    border: int = 0

    def __call__(self, data: bytes, rng: Generator | None = None) -> np.ndarray:
        """Raises `ImageError` for bytes that cannot be read."""
        del rng  # Nothing here is random.
        part = partial(without_border, border=self.border) if self.border else None
        return self.fit(decode_array(data, part))

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Resizes and crops an image, uint8 [height, width, 3]."""
        if self.preprocessing.resize == "squash":
            return resize(pixels, self.size, self.preprocessing)
        side = self.preprocessing.short_side or min(self.size)
        pixels = resize(pixels, covering(pixels, self.size, side), self.preprocessing)
        return central_crop(pixels, self.size)


def _by_pillow(
    operation: Callable[[Image.Image, Generator, Config], Image.Image],
    config: Config,
    pixels: np.ndarray,
    rng: Generator,
) -> np.ndarray:
    """An operation on Pillow's images."""
    return np.asarray(operation(Image.fromarray(pixels), rng, config))


def _inception_crop(pixels: np.ndarray, rng: Generator, *, area: tuple[float, float]) -> np.ndarray:
    height, width, _ = pixels.shape
    return crop(pixels, sample_crop(height, width, area, rng))


def _resize(
    pixels: np.ndarray, rng: Generator, *, size: Size, preprocessing: PreprocessingConfig
) -> np.ndarray:
    del rng
    return resize(pixels, size, preprocessing)


def _resize_crop(
    pixels: np.ndarray, rng: Generator, *, size: Size, preprocessing: PreprocessingConfig
) -> np.ndarray:
    if preprocessing.antialias or pixels.shape[:2] == size:
        return _resize(pixels, rng, size=size, preprocessing=preprocessing)
    return resize_crop(pixels, size)


def _cover(
    pixels: np.ndarray,
    rng: Generator,
    *,
    size: Size,
    short_side: int,
    preprocessing: PreprocessingConfig,
) -> np.ndarray:
    del rng
    return resize(pixels, covering(pixels, size, short_side), preprocessing)
