"""Crops, resizing and small movements, against closed forms and other libraries."""

import tracemalloc
from types import SimpleNamespace
from typing import Any, Literal

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from tests.data.pictures import distance, noise, pixels
from vit_jax.data.config import AffineConfig
from vit_jax.data.images import crops
from vit_jax.data.images.geometry import random_affine, resize, sample_crop
from vit_jax.data.images.jpeg import Box
from vit_jax.preprocessing import PreprocessingConfig


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_crops_have_the_given_area_and_aspect(height: int, width: int, seed: int) -> None:
    left, top, right, bottom = sample_crop(height, width, (0.05, 1.0), np.random.default_rng(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    box_height, box_width = bottom - top, right - left
    if (box_height, box_width) == (height, width):
        return
    assert 0.05 <= box_height * box_width / (height * width) <= 1
    # Half a pixel of rounding in the width.
    assert 3 / 4 * box_height - 0.5 <= box_width <= 4 / 3 * box_height + 0.5


def test_a_crop_is_a_function_of_the_generator() -> None:
    def boxes(seed: int) -> list[Box]:
        rng = np.random.default_rng(seed)
        return [sample_crop(480, 640, (0.05, 1.0), rng) for _ in range(5)]

    assert boxes(7) == boxes(7) != boxes(8)


def test_the_distribution_of_crops() -> None:
    side, draws = 400, 4000
    rng = np.random.default_rng(0)
    boxes = np.array([sample_crop(side, side, (0.05, 1.0), rng) for _ in range(draws)])
    left, top, right, bottom = boxes.T
    width, height = right - left, bottom - top
    # As the aspect a is uniform in [3/4, 4/3] and the height uniform from sqrt(0.05 / a) to the
    # tallest that fits, min(sqrt(1 / a), 1 / a, 1) of the side, so goes the area a * height^2.
    aspect = np.linspace(3 / 4, 4 / 3, 1001)
    low = np.sqrt(0.05 / aspect)
    high = np.minimum(1, 1 / aspect)
    area = np.mean(aspect * (high**2 + high * low + low**2) / 3)
    assert np.mean(width * height) / side**2 == pytest.approx(area, abs=0.015)
    assert np.mean(width / height) == pytest.approx((3 / 4 + 4 / 3) / 2, abs=0.015)
    for first, size in ((left, width), (top, height)):
        room = side - size
        place = first[room > 40] / room[room > 40]
        # Uniform: mean 1/2, variance 1/12.
        assert place.mean() == pytest.approx(1 / 2, abs=0.02)
        assert place.var() == pytest.approx(1 / 12, abs=0.006)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (10, 2000), (2000, 10)])
def test_of_a_very_long_image_the_crop_is_the_whole(height: int, width: int) -> None:
    for seed in range(20):
        box = sample_crop(height, width, (0.05, 1.0), np.random.default_rng(seed))
        assert box == (0, 0, width, height)


def test_a_narrow_range_of_areas_is_kept() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = sample_crop(300, 300, (0.2, 0.25), rng)
        assert 0.2 <= (right - left) * (bottom - top) / 300**2 <= 0.25


SIZES = [(40, 60, 24, 24), (40, 60, 91, 77), (33, 20, 48, 17), (7, 9, 64, 5), (50, 50, 49, 50)]


@pytest.mark.parametrize("shapes", SIZES)
@pytest.mark.parametrize(
    ("method", "preprocessing"),
    [
        ("linear", PreprocessingConfig()),
        ("linear", PreprocessingConfig(antialias=True)),
        ("cubic", PreprocessingConfig(antialias=True, interpolation="bicubic")),
    ],
)
def test_resize_is_jax_image_resize(
    shapes: tuple[int, int, int, int], method: str, preprocessing: PreprocessingConfig
) -> None:
    height, width, *_ = shapes
    size = shapes[2:]
    # Noise of half the range: Pillow clips what cubic weights overshoot after each axis.
    for image in (pixels(height, width), noise(height, width) // 2 + 64):
        found = resize(image, size, preprocessing)
        exact = jax.image.resize(
            image.astype(np.float32), (*size, 3), method, antialias=preprocessing.antialias
        )
        # Pillow's cubic is Keys' with a = -1/2, as JAX's; it rounds after each of the two axes.
        assert distance(found, np.clip(exact, 0, 255)) <= (2 if method == "cubic" else 1.01)


def exact_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Half-pixel centres and repeated edges, in float64."""
    for axis, new in enumerate(size):
        old = image.shape[axis]
        places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        before = np.floor(places).astype(int)
        weight = (places - before).reshape((-1,) + (1,) * (image.ndim - 1 - axis))
        after = np.minimum(before + 1, old - 1)
        image = image.astype(np.float64)
        image = image.take(before, axis) * (1 - weight) + image.take(after, axis) * weight
    return image


@pytest.mark.parametrize(
    "shapes",
    [
        *SIZES,
        (375, 500, 224, 224),
        (256, 512, 128, 256),  # Every value lies on a quarter of a level.
        (1, 300, 32, 16),
        (300, 1, 16, 32),
        (9, 7, 1, 1),
        (3, 5, 1500, 1500),  # The products need more than 32 bits.
        (200, 150, 33, 65),
    ],
)
def test_resize_without_antialias_is_the_rounded_exact_value(
    shapes: tuple[int, int, int, int],
) -> None:
    height, width, *_ = shapes
    size = shapes[2:]
    for image in (pixels(height, width), noise(height, width)):
        found = resize(image, size, PreprocessingConfig())
        exact = exact_bilinear(image, size)
        assert found.shape == (*size, 3)
        assert distance(found, exact) <= 0.5 + 1e-9
        if found.size >= 1e4:
            assert abs((found - exact).mean()) < 0.01


@pytest.mark.parametrize("has_opencv", [True, False])
def test_training_crops_are_within_51_hundredths_of_the_exact_value(
    has_opencv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_opencv:
        monkeypatch.setattr(crops, "opencv", lambda: None)
    elif crops.opencv() is None:
        pytest.skip("OpenCV is not installed")
    size = (224, 224)
    for height, width in ((375, 500), (300, 211), (60, 90), (1, 300), (224, 17), (2, 1)):
        for image in (pixels(height, width), noise(height, width)):
            # As a crop lies in its image.
            whole = np.pad(image, ((3, 4), (5, 2), (0, 0)))
            found = crops.resize_crop(whole[3 : 3 + height, 5 : 5 + width], size)
            exact = exact_bilinear(image, size)
            assert (found.shape, found.dtype) == ((*size, 3), np.uint8)
            assert distance(found, exact) <= 0.51
            assert abs((found - exact).mean()) < 0.01


def test_a_crop_of_many_pixels_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((4097, 4097, 3), (1, 2, 3), np.uint8)
    tracemalloc.start()
    found = crops.resize_crop(image, (3, 4))
    # Pillow's own copy lies elsewhere; one in float32 would take 201 MB.
    assert tracemalloc.get_traced_memory()[1] < 1.1 * image.nbytes
    tracemalloc.stop()
    assert distance(found, np.full((3, 4, 3), (1, 2, 3))) == 0


def test_resize_of_a_large_image_to_a_small_one_takes_little_memory() -> None:
    image = np.full((5000, 5000, 3), (1, 2, 3), np.uint8)
    tracemalloc.start()
    found = resize(image, (3, 4), PreprocessingConfig())
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert distance(found, np.full((3, 4, 3), (1, 2, 3))) == 0


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_with_antialias_is_pillows_bit_for_bit(
    interpolation: Literal["bilinear", "bicubic"],
) -> None:
    image = noise(61, 83)
    preprocessing = PreprocessingConfig(antialias=True, interpolation=interpolation)
    for size in ((20, 33), (90, 100), (61, 20)):
        wanted = Image.fromarray(image).resize(size[::-1], Image.Resampling[interpolation.upper()])
        assert distance(resize(image, size, preprocessing), wanted) == 0


def test_resize_to_its_own_size_is_exact() -> None:
    image = noise(9, 14)
    assert distance(resize(image, (9, 14), PreprocessingConfig()), image) == 0


def highest() -> Any:
    """A generator whose every uniform draw is the upper end."""
    return SimpleNamespace(uniform=lambda low, high: high)


def test_an_affine_of_nothing_is_the_identity() -> None:
    image = Image.fromarray(noise(23, 40))
    assert distance(random_affine(image, np.random.default_rng(0), AffineConfig()), image) == 0


def test_a_rotation_by_a_right_angle() -> None:
    image = noise(24, 24)
    found = random_affine(Image.fromarray(image), highest(), AffineConfig(rotate=90))
    # A positive angle turns x towards y, which points down: clockwise.
    assert distance(found, np.rot90(image, -1)) <= 1


def test_rotation_and_scale_are_scipys_about_the_centre() -> None:
    image = pixels(50, 70)
    found = random_affine(Image.fromarray(image), highest(), AffineConfig(rotate=20, scale=0.3))
    cos, sin = np.cos(np.radians(20)) / 1.3, np.sin(np.radians(20)) / 1.3
    matrix = np.array([[cos, -sin], [sin, cos]])  # rows, columns of the output to the input's
    centre = np.array([24.5, 34.5])

    def transform(plane: np.ndarray) -> np.ndarray:
        return ndimage.affine_transform(plane, matrix, centre - matrix @ centre, order=1)

    # Not the outermost half pixel, where Pillow repeats the edge and SciPy fades to black.
    inside = transform(np.ones(image.shape[:2])) > 0.999
    assert inside.mean() > 0.7
    for channel in range(3):
        expected = transform(image[..., channel].astype(np.float64))
        assert distance(np.asarray(found)[inside, channel], expected[inside]) <= 1.01


def test_a_shift_is_a_share_of_the_side_and_fills_with_black() -> None:
    image = noise(16, 32) // 2 + 100
    found = np.asarray(random_affine(Image.fromarray(image), highest(), AffineConfig(shift=0.25)))
    assert distance(found[4:, 8:], image[:-4, :-8]) <= 1
    assert found[:4].max() == found[:, :8].max() == 0


def test_shifts_stay_within_their_bound() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    places = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        moved = np.asarray(random_affine(Image.fromarray(image), rng, AffineConfig(shift=0.2)))
        places.append(ndimage.center_of_mass(moved[..., 0].astype(np.float64)))
    far = np.abs(np.array(places) - 20)
    # Within 0.2 * 41 pixels in both directions, and nearly there in some.
    assert far.max() <= 8.2 + 0.1
    assert far.max() > 7.5
    assert far.mean() == pytest.approx(4.1, abs=0.5)
