"""Resizing of training crops without antialias, by OpenCV where it is installed.

Evaluation and prediction resize exactly (`bilinear.py`). A training crop is at most 0.51 of a
level from the exact value, 0.5 of which is the last rounding, and on average as bright. OpenCV's
bilinear resizing of 8-bit pixels would be up to 0.8 of a level off, and 0.1 too dark on average.
"""

import functools
import multiprocessing
from types import ModuleType

import numpy as np
from PIL import Image

from vit_jax.data.images.bilinear import resize_bilinear

# Pixels of a crop whose copy in float32 takes no more memory than the image itself may.
_MOST_PIXELS = 2**24


def resize_crop(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 [height, width, 3] to `size`, height and width, with half-pixel centres."""
    cv2 = opencv()
    if cv2 is None or pixels.shape[0] * pixels.shape[1] > _MOST_PIXELS:
        return np.asarray(resize_bilinear(Image.fromarray(pixels), size))
    # Its 8-bit arithmetic has weights of 11 bits. In float32 only the last step rounds.
    levels = cv2.resize(pixels.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.convertScaleAbs(levels)


def resizer() -> str:
    """What resizes training crops here: "opencv" or "numpy"."""
    return "numpy" if opencv() is None else "opencv"


@functools.cache
def opencv() -> ModuleType | None:
    """OpenCV, which is imported when it is needed; None if it is missing."""
    try:
        import cv2
    except ImportError:
        return None
    if multiprocessing.parent_process() is not None:  # A data worker is one of many.
        cv2.setNumThreads(1)
    return cv2
