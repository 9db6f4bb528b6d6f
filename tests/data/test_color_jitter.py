"""Colour jitter against torchvision's published formulas, in float64."""

import colorsys

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import encode, pixels
from vit_jax.data.config import ColorJitterConfig, DataConfig
from vit_jax.data.images.color_jitter import _amount, color_jitter, shift_hue
from vit_jax.data.images.transforms import make_transform
from vit_jax.errors import UserError
from vit_jax.preprocessing import PreprocessingConfig

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
# ITU-R 601-2, as in torchvision's rgb_to_grayscale.
LUMA = np.array([0.299, 0.587, 0.114])


class Drawn(np.random.Generator):
    """Draws given numbers."""

    def __init__(self, order: list[int], draw: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.order, self.draw = order, draw

    def permutation(self, *_: object, **__: object) -> np.ndarray:
        return np.array(self.order)

    def uniform(self, *_: object, **__: object) -> np.ndarray:  # type: ignore[override]
        return np.full(4, self.draw)


def blended(image: np.ndarray, other: np.ndarray, factor: float) -> np.ndarray:
    """torchvision's `_blend`: factor * image + (1 - factor) * other, clipped."""
    return np.clip(factor * image + (1 - factor) * other, 0, 255)


def other(name: str, image: np.ndarray) -> np.ndarray:
    grey = (image.astype(np.float64) @ LUMA)[..., None]
    if name == "brightness":
        return np.zeros_like(grey)
    return np.full_like(grey, grey.mean()) if name == "contrast" else grey


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize(
    ("strength", "draw", "factor"), [(0.4, 1, 1.4), (0.4, -1, 0.6), (2, -1, 0)]
)
def test_a_factor_blends_as_in_torchvision(
    name: str, strength: float, draw: float, factor: float
) -> None:
    config = ColorJitterConfig(**{name: strength})
    found = np.asarray(color_jitter(Image.fromarray(IMAGE), Drawn([0, 1, 2, 3], draw), config))
    # Pillow truncates, and its grey is an integer: up to two levels.
    assert np.abs(found - blended(IMAGE, other(name, IMAGE), factor)).max() <= 2


def test_factors_are_uniform_in_torchvisions_interval() -> None:
    draws = np.random.default_rng(0).uniform(-1, 1, 20_000)
    for strength, low, high in ((0.4, 0.6, 1.4), (3.0, 0.0, 4.0)):
        factors = np.array([_amount("contrast", strength, draw) for draw in draws])
        assert low <= factors.min() < low + 0.01 * high and high * 0.99 < factors.max() <= high
        assert abs(factors.mean() - (low + high) / 2) < 0.01 * high
    shifts = np.array([_amount("hue", 0.1, draw) for draw in draws])
    assert -0.1 <= shifts.min() < -0.099 and 0.099 < shifts.max() <= 0.1


@pytest.mark.parametrize("share", [-0.5, -0.1, 0.25, 0.5])
def test_hue_turns(share: float) -> None:
    vivid = np.array([[[220, 40, 30], [30, 200, 60], [40, 60, 210], [200, 190, 20]]], np.uint8)
    found = np.asarray(shift_hue(Image.fromarray(vivid), share)) / 255
    for before, after in zip(vivid[0] / 255, found[0], strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        wanted = colorsys.hsv_to_rgb((hue + share) % 1, saturation, value)
        assert np.abs(np.array(wanted) - after).max() < 0.04  # 8 bits of hue.


def test_grey_keeps_its_hue() -> None:
    grey = Image.new("RGB", (3, 3), (90, 90, 90))
    assert np.array_equal(np.asarray(shift_hue(grey, 0.3)), np.asarray(grey))


def test_the_order_is_drawn() -> None:
    config = ColorJitterConfig(brightness=0.9, contrast=0.9)
    one, two = (
        np.asarray(color_jitter(Image.fromarray(IMAGE), Drawn(order, 1.0), config))
        for order in ([0, 1, 2, 3], [1, 0, 2, 3])
    )
    brighter = blended(IMAGE, other("brightness", IMAGE), 1.9)
    assert np.abs(one - blended(brighter, other("contrast", brighter), 1.9)).max() <= 4
    assert not np.array_equal(one, two)


def test_a_transform_is_a_function_of_its_generator() -> None:
    config = DataConfig("x", crop="none", color_jitter=ColorJitterConfig(0.4, 0.4, 0.4, 0.1))
    transform = make_transform((20, 30), PreprocessingConfig(), config)
    data = encode(pixels(20, 30), "PNG")
    first, again, another = (transform(data, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, another)


@pytest.mark.parametrize("values", [{}, {"hue": 0.6}, {"contrast": -0.1}])
def test_values_that_mean_nothing_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"hue|color_jitter changes nothing"):
        ColorJitterConfig(**values)
