"""From encoded bytes to the images of a batch, for training and for evaluation.

All of it happens on the host. Whatever is random is drawn from a given generator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator
from PIL import Image

from vit_jax.data.config import DataConfig
from vit_jax.data.images.color_jitter import color_jitter
from vit_jax.data.images.decoding import decode
from vit_jax.data.images.erase import erase
from vit_jax.data.images.geometry import (
    Size,
    central_crop,
    covering,
    inception_crop,
    random_affine,
    random_box,
    resize,
    without_border,
)
from vit_jax.data.images.randaugment import rand_augment
from vit_jax.preprocessing import PreprocessingConfig

# One step from an RGB image to the next. It must be picklable: data workers get a copy.
Operation = Callable[[Image.Image, Generator], Image.Image]


@dataclass(frozen=True)
class TrainTransform:
    """Encoded bytes to a training image, uint8 [height, width, 3]: operations one by one."""

    operations: tuple[Operation, ...]

    def __call__(self, data: bytes, rng: Generator) -> np.ndarray:
        """Raises `ImageError` for bytes that cannot be read."""
        image = decode(data)
        for operation in self.operations:
            image = operation(image, rng)
        return np.asarray(image)


def make_transform(
    size: Size, preprocessing: PreprocessingConfig, config: DataConfig
) -> TrainTransform:
    """The training transform of a config: moves, crops, augments and erases, in this order.

    Args:
      size: height and width of the result in pixels.
    """
    operations: list[Operation] = []
    if config.affine is not None:
        operations.append(partial(random_affine, config=config.affine))
    operations += _crop(size, preprocessing, config)
    if config.color_jitter is not None:
        operations.append(partial(color_jitter, config=config.color_jitter))
    if config.randaugment is not None:
        operations.append(partial(rand_augment, config=config.randaugment))
    if config.erase > 0:
        operations.append(partial(erase, probability=config.erase))
    return TrainTransform(tuple(operations))


def _crop(
    size: Size, preprocessing: PreprocessingConfig, config: DataConfig
) -> tuple[Operation, ...]:
    """The operations that lead to an image of `size`."""
    to_size = partial(_resize, size=size, preprocessing=preprocessing)
    match config.crop:
        case "none":
            return (to_size,)
        case "inception":
            return partial(inception_crop, area=config.crop_area), to_size
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
        image = decode(data)
        return self.fit(without_border(image, self.border) if self.border else image)

    def fit(self, image: Image.Image) -> np.ndarray:
        """Resizes and crops an RGB image."""
        if self.preprocessing.resize == "squash":
            return np.asarray(resize(image, self.size, self.preprocessing))
        side = self.preprocessing.short_side or min(self.size)
        image = resize(image, covering(image, self.size, side), self.preprocessing)
        return np.asarray(central_crop(image, self.size))


def _resize(
    image: Image.Image, rng: Generator, *, size: Size, preprocessing: PreprocessingConfig
) -> Image.Image:
    del rng
    return resize(image, size, preprocessing)


def _cover(
    image: Image.Image,
    rng: Generator,
    *,
    size: Size,
    short_side: int,
    preprocessing: PreprocessingConfig,
) -> Image.Image:
    del rng
    return resize(image, covering(image, size, short_side), preprocessing)
