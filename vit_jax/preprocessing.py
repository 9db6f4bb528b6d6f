"""How a model expects its input images. This travels with the weights."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vit_jax.errors import UserError

_LEAST_STD, _LARGEST = 1e-6, 1e4


@dataclass(frozen=True)
class PreprocessingConfig:
    """From a decoded image to the values that a model was trained on.

    The host resizes and crops the image in uint8; the device applies mean and deviation.
    """

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Mean of each channel, for values in [0, 1]. With the default deviation, 0.5 maps them to
    [-1, 1] as in the paper's code."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Deviation of each channel, for values in [0, 1]."""
    resize: Literal["squash", "short_side"] = "squash"
    """How an image is resized for evaluation. squash: to the model's input size, whatever its
    aspect. short_side: the shorter side to `short_side` pixels, then the central crop."""
    short_side: int | None = None
    """Pixels of the shorter side, only with resize='short_side'. None: the shorter side of the
    model's input."""
    crop_share: float | None = None
    """Share of the resized shorter side that the central crop keeps, only with `short_side`, which
    is the model's input over this, rounded down. It matters at another image size. None: the input
    over `short_side`."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Kernel that resizes images."""
    antialias: bool = False
    """Whether resizing smooths first, as Pillow and torchvision do. The paper's code does not."""

    def __post_init__(self) -> None:
        if self.short_side is not None and self.resize == "squash":
            raise UserError("short_side would be ignored: it needs resize='short_side'")
        if self.short_side is not None and self.short_side < 1:
            raise UserError(f"short_side must be at least 1 pixel, not {self.short_side}")
        if self.crop_share is not None and self.short_side is None:
            raise UserError("crop_share would be ignored: it needs short_side")
        if self.crop_share is not None and not 0 < self.crop_share <= 1:
            raise UserError(f"crop_share must be above 0 and at most 1, not {self.crop_share}")
        if self.interpolation == "bicubic" and not self.antialias:
            raise UserError("interpolation='bicubic' needs antialias=True")
        # Beyond these bounds float32 has no numbers, or all images look alike.
        if min(self.std) < _LEAST_STD or max(self.std) > _LARGEST:
            raise UserError(f"std must be from {_LEAST_STD:g} to {_LARGEST:g}, not {self.std}")
        if max(map(abs, self.mean)) > _LARGEST:
            raise UserError(f"mean must be from -{_LARGEST:g} to {_LARGEST:g}, not {self.mean}")

    def at(self, old_side: int, new_side: int) -> "PreprocessingConfig":
        """The same for inputs of another shorter side, in pixels: the crop keeps its share.

        The side to which images are resized is rounded down, as by DeiT and timm.
        """
        if self.short_side is None or old_side == new_side:
            return self
        if self.crop_share is None:
            short_side, share = new_side * self.short_side // old_side, old_side / self.short_side
        else:
            short_side, share = math.floor(new_side / self.crop_share), self.crop_share
        # At least the input itself, which a share rounded down could miss by a pixel.
        short_side = max(new_side, short_side)
        known = new_side / short_side == share
        return dataclasses.replace(
            self, short_side=short_side, crop_share=None if known else min(share, 1.0)
        )


def central_crop(side: int, share: float) -> dict[str, Any]:
    """The values of a `PreprocessingConfig` for a central crop.

    Args:
      side: of the model's input, the shorter one, in pixels.
      share: of the resized image's shorter side that the crop takes, as timm's `crop_pct`.
    """
    short_side = math.floor(side / share)
    crop: dict[str, Any] = {"resize": "short_side", "short_side": short_side}
    # What the two sides show need not be said.
    return crop if side / short_side == share else crop | {"crop_share": share}


def largest_value(preprocessing: PreprocessingConfig) -> float:
    """The largest magnitude that `normalize` gives a pixel from 0 to 255."""
    pairs = list(zip(preprocessing.mean, preprocessing.std, strict=True))
    return max(abs(pixel - mean) / std for mean, std in pairs for pixel in (0, 1))


def normalize(images: Any, preprocessing: PreprocessingConfig) -> Any:
    """Scales pixels to the range that the model was trained on: (x / 255 - mean) / std.

    Args:
      images: numbers from 0 to 255, [..., 3], a NumPy or a JAX array.

    Returns:
      float32 [..., 3], an array of the same library.
    """
    mean, std = (np.asarray(x, np.float32) for x in (preprocessing.mean, preprocessing.std))
    return images.astype(np.float32) * (1 / (255 * std)) - mean / std
