"""Bilinear resizing without antialias, exact to the last rounding."""

import numpy as np
from PIL import Image

# Rows of the result that are made at a time: their arrays stay in the processor's cache, and the
# memory beside a large image is small.
_BAND_ROWS = 32
# Pixels of the image that are copied for them at most, or one row of the result.
_BAND_PIXELS = 2**22


def resize_bilinear(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resizes an RGB image with half-pixel centres; each value is the exact one, rounded.

    Coordinates outside of the outermost centres take the value of the edge, as in TensorFlow and
    JAX. All weights are fractions with the denominator 2 * side, so that integers hold them
    exactly and only the last step rounds: half a level at most, and to even numbers where two
    levels are equally close, so that a result is as bright as its image. Pillow cannot do this:
    its `resize` always smooths, and its `transform` cuts fractions off.

    Args:
      size: height and width of the result in pixels.
    """
    height, width = size
    dtype = np.int32 if 255 * 4 * height * width < 2**31 else np.int64
    upper, lower, down = _neighbours(image.height, height)
    left, right, across = _neighbours(image.width, width)
    # The three channels of a pixel lie side by side.
    channels = np.arange(3)
    left, right = ((3 * x[:, None] + channels).ravel() for x in (left, right))
    across = np.repeat(across, 3).astype(dtype)
    result = np.empty((height, 3 * width), np.uint8)
    fitting = _BAND_PIXELS * height // (image.width * image.height)
    band_rows = min(max(fitting, 1), _BAND_ROWS)
    for start in range(0, height, band_rows):
        band = slice(start, start + band_rows)
        top, bottom = upper[band], lower[band]
        first, last = int(top[0]), int(bottom[-1])
        source = np.asarray(image.crop((0, first, image.width, last + 1)))
        source = source.reshape(len(source), -1)
        over = source[top - first].astype(dtype)
        rows = source[bottom - first] - over
        rows *= down[band, None].astype(dtype)
        over *= dtype(2 * height)
        rows += over
        value, change = (rows.take(columns, axis=1, mode="clip") for columns in (left, right))
        change -= value
        change *= across
        value *= dtype(2 * width)
        change += value
        # A division, since a product with the inverse would round all ties to the same side.
        exact = change / (4.0 * height * width)
        result[band] = np.rint(exact, out=exact)
    return Image.fromarray(result.reshape(height, width, 3))


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along one axis, for each new pixel: the old ones before and after its centre, and a weight.

    Returns:
      Two indices, and the weight of the second in units of 1 / (2 * new).
    """
    # (i + 1/2) * old / new - 1/2, times 2 * new.
    places = np.arange(1, 2 * new, 2) * old - new
    before, weight = np.divmod(places.clip(0, 2 * new * (old - 1)), 2 * new)
    return before, np.minimum(before + 1, old - 1), weight
