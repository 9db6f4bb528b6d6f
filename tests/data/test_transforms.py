"""Whole transforms for training and evaluation."""

from typing import Literal

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import distance, encode, pixels
from vit_jax.data.config import DataConfig
from vit_jax.data.images.crops import resize_crop
from vit_jax.data.images.geometry import resize, sample_crop
from vit_jax.data.images.transforms import EvalTransform, make_transform
from vit_jax.preprocessing import PreprocessingConfig


def test_squash_is_the_whole_image_resized() -> None:
    image = Image.fromarray(pixels(40, 90))
    transform = EvalTransform((32, 48), PreprocessingConfig(antialias=True))
    assert (
        distance(transform(encode(image)), image.resize((48, 32), Image.Resampling.BILINEAR)) == 0
    )


def torchvision_resize(image: Image.Image, short_side: int) -> np.ndarray:
    """Resize(short_side) as torchvision documents it."""
    width, height = image.size
    if width <= height:
        width, height = short_side, int(short_side * height / width)
    else:
        width, height = int(short_side * width / height), short_side
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def torchvision_crop(image: Image.Image, short_side: int, size: int) -> np.ndarray:
    """Resize(short_side) and CenterCrop(size) as torchvision documents them."""
    resized = torchvision_resize(image, short_side)
    height, width = resized.shape[:2]
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)
    return resized[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(40, 90), (91, 40), (64, 64), (37, 38), (300, 17), (28, 28)])
@pytest.mark.parametrize("short_side", [28, 32, 33])
def test_short_side_is_torchvisions_resize_and_centre_crop(
    shape: tuple[int, int], short_side: int
) -> None:
    image = Image.fromarray(pixels(*shape))
    preprocessing = PreprocessingConfig(
        resize="short_side", short_side=short_side, interpolation="bicubic", antialias=True
    )
    found = EvalTransform((28, 28), preprocessing)(encode(image))
    assert distance(found, torchvision_crop(image, short_side, 28)) == 0


@pytest.mark.parametrize("shape", [(40, 90), (91, 40), (200, 30), (48, 72)])
@pytest.mark.parametrize("size", [(32, 48), (48, 32)])
def test_short_side_of_an_input_that_is_not_square(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """The centre of the image, enlarged alike in both directions until it covers the input."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    # Values are positions, so that the crop can be read off its own pixels.
    image = np.stack([255 * x / shape[1], 255 * y / shape[0], 0 * x], axis=-1).astype(np.uint8)
    preprocessing = PreprocessingConfig(resize="short_side", antialias=True)
    found = EvalTransform(size, preprocessing)(encode(image)).astype(np.float64)
    assert found.shape == (*size, 3)
    scale = max(size[0] / shape[0], size[1] / shape[1])
    for channel, (part, whole) in enumerate(zip(size[::-1], shape[::-1], strict=True)):
        first, last = found[..., channel].min() / 255, found[..., channel].max() / 255
        assert last - first == pytest.approx(part / (scale * whole), abs=0.06)
        assert (first + last) / 2 == pytest.approx(0.5, abs=0.04)


def test_short_side_enlarges_by_its_ratio_to_the_shorter_input_side() -> None:
    image = Image.fromarray(pixels(96, 144))
    preprocessing = PreprocessingConfig(resize="short_side", short_side=64, antialias=True)
    found = EvalTransform((32, 48), preprocessing)(encode(image))
    resized = np.asarray(image.resize((96, 64), Image.Resampling.BILINEAR))
    assert distance(found, resized[16:48, 24:72]) == 0


def test_training_without_a_crop_is_squash() -> None:
    data = encode(pixels(40, 90))
    config = DataConfig("./x", crop="none")
    found = make_transform((32, 48), PreprocessingConfig(), config)(data, np.random.default_rng(0))
    assert distance(found, EvalTransform((32, 48), PreprocessingConfig())(data)) == 0


def test_training_images_are_crops_by_the_generator() -> None:
    image = pixels(60, 90)
    transform = make_transform((32, 48), PreprocessingConfig(), DataConfig("./x"))
    for seed in range(5):
        left, top, right, bottom = sample_crop(60, 90, (0.05, 1), np.random.default_rng(seed))
        crop = image[top:bottom, left:right]
        found = transform(encode(image), np.random.default_rng(seed))
        assert (found.shape, found.dtype) == ((32, 48, 3), np.uint8)
        assert distance(found, resize_crop(crop, (32, 48))) == 0


def positions(height: int, width: int) -> bytes:
    """An image whose values are its positions: red from left to right, green downwards."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([255 * x / (width - 1), 255 * y / (height - 1), 0 * x], axis=-1)
    return encode(image.round().astype(np.uint8))


def corners(
    crop: Literal["resize", "short_side"], crop_side: int, size: tuple[int, int], data: bytes
) -> np.ndarray:
    """Left and upper edge of random crops, and their spans, as shares of the image: [300, 4]."""
    preprocessing = PreprocessingConfig(antialias=True)
    config = DataConfig("./x", crop=crop, crop_side=crop_side)
    transform = make_transform(size, preprocessing, config)
    found, rng = [], np.random.default_rng(0)
    for _ in range(300):
        image = transform(data, rng).astype(np.float64) / 255
        assert image.shape == (*size, 3)
        left, top = image[..., 0].min(), image[..., 1].min()
        found.append((left, top, image[..., 0].max() - left, image[..., 1].max() - top))
    return np.array(found)


# The crop's sides and the room that it has, in the resized image's sides.
@pytest.mark.parametrize(
    ("crop", "size", "resized"),
    [
        ("resize", (24, 24), (32, 32)),
        ("resize", (24, 48), (32, 64)),
        ("short_side", (24, 24), (32, 96)),
        ("short_side", (24, 48), (32, 96)),
        ("short_side", (48, 24), (64, 192)),
    ],
)
def test_crops_of_the_resized_image_have_its_scale_and_any_place(
    crop: Literal["resize", "short_side"], size: tuple[int, int], resized: tuple[int, int]
) -> None:
    found = corners(crop, 32, size, positions(100, 300))
    shares = np.array(size) / resized
    # Between the centres of the outermost pixels; half a pixel at the edges, where values repeat.
    assert np.abs(found[:, 2:] - shares[::-1]).max() < 1.2 / np.array(resized)[::-1].min()
    for first, share, side in zip(found[:, :2].T, shares[::-1], resized[::-1], strict=True):
        assert len(np.unique(first.round(2))) > 5
        assert first.min() == pytest.approx(0, abs=1 / side)
        assert first.max() == pytest.approx(1 - share, abs=1 / side)
        # Uniform.
        assert first.mean() == pytest.approx((1 - share) / 2, abs=0.05)


def test_a_crop_that_leaves_no_room_is_the_resized_image() -> None:
    image = pixels(40, 90)
    config = DataConfig("./x", crop="resize", crop_side=32)
    transform = make_transform((32, 32), PreprocessingConfig(), config)
    found = transform(encode(image), np.random.default_rng(0))
    assert distance(found, resize(image, (32, 32), PreprocessingConfig())) == 0


def test_the_short_sides_crop_is_torchvisions_resize_and_a_box_of_it() -> None:
    image = Image.fromarray(pixels(40, 90))
    preprocessing = PreprocessingConfig(interpolation="bicubic", antialias=True)
    config = DataConfig("./x", crop="short_side", crop_side=32)
    found = make_transform((28, 28), preprocessing, config)(encode(image), np.random.default_rng(3))
    whole = torchvision_resize(image, 32)
    boxes = [
        whole[top : top + 28, left : left + 28]
        for top in range(32 - 28 + 1)
        for left in range(whole.shape[1] - 28 + 1)
    ]
    assert sum(np.array_equal(found, box) for box in boxes) == 1
