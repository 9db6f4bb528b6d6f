"""From any kind of pixels to 8-bit RGB, without a guess.

Pixels of more than 8 bits mean what they mean only if their range is known. Floats count from 0 to
1, 16-bit integers from 0 to 65,535. What lies elsewhere is refused by name.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.orientation import upright

# An image of 16 bits whose largest value needs no more than 14 is one of 10, 12 or 14 bits, and
# would be a quarter as bright as it should be, or less.
_SUSPECT = 2**14
_BAND_PIXELS = 2**20
# Tags of TIFF.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO, _SAMPLE_FORMAT, _SIGNED = 258, 262, 0, 339, 2


class _Depth(NamedTuple):
    """How an image is stored, as far as Pillow's mode does not show it.

    Attributes:
      is_deep: whether its samples have 16 bits, of which Pillow may keep 8.
      is_signed: whether its samples may be negative integers.
      white: the largest value of a 16-bit sample.
      is_negative: whether 0 is white, where Pillow leaves it so.
    """

    is_deep: bool
    is_signed: bool
    white: int
    is_negative: bool


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB.

    An alpha channel is dropped, 16-bit grey and floats are scaled, and the EXIF orientation is
    applied.

    Raises:
      ImageError: what the values of its pixels mean is not known.
      Exception: whatever Pillow raises on damaged bytes.
    """
    depth = _depth(image)
    image.load()
    image = upright(image)
    if depth.is_signed:
        raise _refused("integers with a sign", "save it with 8 bits, from 0 to 255")
    if image.mode == "LAB":
        raise _refused("LAB colours", "save it in RGB")
    if image.mode == "F":
        image = _from_floats(image, depth)
    elif image.mode.startswith("I"):
        image = _from_integers(image, depth)
    elif depth.is_deep:
        # Pillow keeps the upper 8 bits of colours.
        _require_brightness(max(high for _, high in _extrema(image)[:3]) << 8 | 255)
    elif image.mode in ("La", "RGBa"):  # Multiplied by alpha.
        image = image.convert(f"{image.mode[:-1]}A")
    if image.mode == "RGB":
        return image
    if "transparency" in image.info:  # Pillow would warn that it is lost.
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _depth(image: Image.Image) -> _Depth:
    white, is_negative, is_signed = 2**16 - 1, False, False
    if isinstance(image, TiffImageFile):
        if image.tag_v2.get(_BITS_PER_SAMPLE) == (12,):
            white = 2**12 - 1
        is_signed = _SIGNED in image.tag_v2.get(_SAMPLE_FORMAT, ())
        is_negative = image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    tiles = image.tile if isinstance(image, ImageFile) else []
    is_deep = any(";16" in str(tile.args) or "65535" in str(tile.args) for tile in tiles)
    return _Depth(is_deep, is_signed, white, is_negative)


def _from_floats(image: Image.Image, depth: _Depth) -> Image.Image:
    low = min(float(band.min()) for _, band in _bands(image))
    high = max(float(band.max()) for _, band in _bands(image))
    # Both are not a number if one of the pixels is not.
    if not (low >= 0 and high <= 1):
        raise _refused(
            f"floats from {low:g} to {high:g}", "only 0 to 1 is read; save it with 8 bits"
        )
    grey = np.empty((image.height, image.width), np.uint8)
    for row, band in _bands(image):
        levels = np.rint(band * 255).astype(np.uint8)
        grey[row : row + len(band)] = 255 - levels if depth.is_negative else levels
    return Image.fromarray(grey)


def _from_integers(image: Image.Image, depth: _Depth) -> Image.Image:
    # Pillow brings a PPM of any range to 16 bits, and calls that "I" too.
    if image.mode == "I" and image.format != "PPM":
        raise _refused("integers of 32 bits", "their range is not known; save it with 8 bits")
    image = image.convert("I")
    ((_, largest),) = _extrema(image)
    if depth.white == 2**16 - 1:
        _require_brightness(largest)
    # x / 257 at 16 bits: nothing lies half-way, as 257 is odd.
    levels = np.rint(np.arange(2**16) * (255 / depth.white)).clip(0, 255).astype(int)
    return image.point((255 - levels if depth.is_negative else levels).tolist(), "L")


def _require_brightness(largest: int) -> None:
    if 0 < largest < _SUSPECT:
        raise _refused(
            f"16 bits a value, but none above {largest:,} of 65,535",
            "it seems to have fewer bits; save it with 8 bits, or scaled to the full range",
        )


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    """The least and the largest value of each band."""
    found = image.getextrema()
    pairs = found if isinstance(found[0], tuple) else (found,)
    return [(int(low), int(high)) for low, high in pairs]


def _bands(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """First rows and pixels of horizontal pieces: a whole large image would take much memory."""
    rows = max(_BAND_PIXELS // image.width, 1)
    for row in range(0, image.height, rows):
        box = (0, row, image.width, min(row + rows, image.height))
        yield row, np.asarray(image.crop(box))


def _refused(what: str, remedy: str) -> ImageError:
    return ImageError(f"cannot read the image ({what}: {remedy})")
