"""Images for tests, and how much two of them differ."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = Image.Image | npt.ArrayLike | None


def pixels(height: int, width: int) -> np.ndarray:
    """Smooth and different in each channel and corner, so that JPEG keeps it."""
    y, x = np.mgrid[:height, :width]
    waves = (np.sin(x / 7) * np.cos(y / 9), np.sin((x + 2 * y) / 11), np.cos(x / 15 - y / 5))
    return np.stack([127 + 100 * wave + x % 5 for wave in waves], axis=-1).astype(np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def encode(image: Image.Image | np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def distance(a: Picture, b: Picture) -> float:
    """The largest difference of two images, in levels of 0 to 255."""
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert one.shape == other.shape
    return float(np.abs(one - other).max())
