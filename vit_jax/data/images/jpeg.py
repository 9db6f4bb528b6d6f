"""From encoded bytes to arrays of pixels: JPEG by libjpeg-turbo without Pillow in between.

Pillow decodes what is not a plain JPEG, and every file about which libjpeg-turbo complains, so that
what is read and what is refused are as in `decoding.decode`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vit_jax.data.images.decoding import (
    BY_JPEG_MODE,
    as_image_error,
    require_memory,
    require_memory_of,
)
from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.formats import open_image
from vit_jax.data.images.orientation import orientation, upright_array
from vit_jax.data.images.pixels import upright_rgb

try:
    import simplejpeg
except ImportError:  # There is none for this platform. Pillow decodes everything.
    simplejpeg = None

# What decodes a plain JPEG here.
DECODER = "pillow" if simplejpeg is None else "simplejpeg"
# Left, upper, right and lower edge in pixels, in Pillow's order.
Box = tuple[int, int, int, int]
# Which part of an upright image is wanted, by its height and width.
Part = Callable[[int, int], Box]

# Markers of JPEG, ITU-T T.81, table B.1. Frames: baseline, extended, progressive (Huffman coded).
_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_START_OF_SCAN, _RESTART_INTERVAL, _APP1 = 0xDA, 0xDD, 0xE1
# Rows below the wanted ones that colours are interpolated from, and some more.
_MARGIN = 4
# Leaving out fewer rows than this gains nothing.
_FEWEST_ROWS = 16
# What libjpeg-turbo says of a file whose header claims fewer rows than it has: all was sound up to
# there, and the end of the image followed.
_REST = "extraneous bytes before marker 0xd9"


class _Frame(NamedTuple):
    """What the header of a JPEG says, as far as it matters here.

    Attributes:
      channels: 1 or 3.
      height_at: where the two bytes of the height lie.
      is_cuttable: whether the rows follow each other in the file, so that it may end after any.
      is_tagged: whether it has a block that may hold an orientation.
    """

    height: int
    width: int
    channels: int
    height_at: int
    is_cuttable: bool
    is_tagged: bool


def decode_array(data: bytes, part: Part | None = None) -> np.ndarray:
    """Encoded bytes to an upright image, or to a part of it, in 8-bit RGB.

    Rows below the part are not decoded if the file allows that; the pixels are the same.

    Args:
      part: is asked once for the wanted box. None: the whole image.

    Returns:
      uint8 [height, width, 3]; it may be read-only and a view of a larger array.

    Raises:
      ImageError: as for `decoding.decode`.
    """
    try:
        return _decode_array(data, part)
    except ImageError:
        raise
    except Exception as error:
        raise as_image_error(error) from error


def _decode_array(data: bytes, part: Part | None) -> np.ndarray:
    box: Box | None = None
    frame = _frame(data) if simplejpeg is not None else None
    if frame is not None:
        mode = "RGB" if frame.channels == 3 else "L"
        require_memory(frame.width, frame.height, len(data), BY_JPEG_MODE.get(mode, 8.0))
        stored = orientation(open_image(data)) if frame.is_tagged else 1
        size = frame.height, frame.width
        box = _box(size[::-1] if 5 <= stored <= 8 else size, part)
        pixels = _decode(data, frame, box[3] if stored == 1 else frame.height)
        if pixels is not None:
            return crop(upright_array(pixels, stored), box)
    image = open_image(data)
    require_memory_of(image, len(data))
    pixels = np.asarray(upright_rgb(image))
    return crop(pixels, box or _box(pixels.shape[:2], part))


def crop(pixels: np.ndarray, box: Box) -> np.ndarray:
    """The view of [height, width, channels] that a box is."""
    left, upper, right, lower = box
    return pixels[upper:lower, left:right]


def _box(size: tuple[int, ...], part: Part | None) -> Box:
    height, width = size
    return (0, 0, width, height) if part is None else part(height, width)


def _frame(data: bytes) -> _Frame | None:
    """Reads the header; None if this is not a JPEG that libjpeg-turbo decodes to RGB."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    found: tuple[int, int] | None = None
    is_tagged = restarts = False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if marker == _START_OF_SCAN:
            break
        if marker in _FRAMES and found is None:
            found = at, marker
        elif marker in _FRAMES or marker in _OTHER_FRAMES:
            return None
        elif marker == _RESTART_INTERVAL:
            restarts = True
        elif marker == _APP1:
            is_tagged = True
        at += 2 + length
    else:
        return None
    if found is None or at + 5 > len(data):
        return None
    start, marker = found
    precision, channels = data[start + 4], data[start + 9]
    height, width = (data[i] << 8 | data[i + 1] for i in (start + 5, start + 7))
    if precision != 8 or channels not in (1, 3) or not height or not width:
        return None
    is_progressive = marker == _FRAMES[2]
    in_one_scan = data[at + 4] == channels
    is_cuttable = in_one_scan and not restarts and not is_progressive
    return _Frame(height, width, channels, start + 5, is_cuttable, is_tagged)


def _decode(data: bytes, frame: _Frame, rows: int) -> np.ndarray | None:
    """The first rows, or all, as uint8 [height, width, 3]; None where Pillow must decide."""
    height = rows + _MARGIN
    if not frame.is_cuttable or height + _FEWEST_ROWS > frame.height:
        height = frame.height
    else:
        before, after = data[: frame.height_at], data[frame.height_at + 2 :]
        data = b"".join((before, height.to_bytes(2), after))
    pixels = np.empty((height, frame.width, 3), np.uint8)
    try:
        simplejpeg.decode_jpeg(data, buffer=pixels)
    except ValueError as error:
        if height == frame.height or not str(error).endswith(_REST):
            return None
    return pixels
