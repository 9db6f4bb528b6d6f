"""Random changes of brightness, contrast, saturation and hue, as torchvision's `ColorJitter`.

The facts are from `torchvision.transforms.ColorJitter` (0.21) on PIL images: factors are uniform in
[max(0, 1 - v), 1 + v], hue shifts in [-h, h], and the four follow each other in random order.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageEnhance

from vit_jax.data.config import ColorJitterConfig


def color_jitter(image: Image.Image, rng: Generator, config: ColorJitterConfig) -> Image.Image:
    """Changes the colours of an RGB image."""
    # All is drawn whatever is off, so that a change of one value leaves the other draws alone.
    order, draws = rng.permutation(len(_OPERATIONS)), rng.uniform(-1, 1, len(_OPERATIONS))
    for name in (tuple(_OPERATIONS)[i] for i in order):
        strength = getattr(config, name)
        if strength:
            draw = float(draws[tuple(_OPERATIONS).index(name)])
            image = _OPERATIONS[name](image, _amount(name, strength, draw))
    return image


def _amount(name: str, strength: float, draw: float) -> float:
    """The shift of hue, or the factor; `draw` is uniform in [-1, 1]."""
    if name == "hue":
        return strength * draw
    low, high = max(0.0, 1 - strength), 1 + strength
    return low + (high - low) * (draw + 1) / 2


def shift_hue(image: Image.Image, share: float) -> Image.Image:
    """Turns the hue by a share of the whole circle, in [-0.5, 0.5]."""
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.array(int(share * 255)).astype(np.uint8)  # It wraps around.
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


def _brighten(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _saturate(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


_OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": _brighten,
    "contrast": _contrast,
    "saturation": _saturate,
    "hue": shift_hue,
}
