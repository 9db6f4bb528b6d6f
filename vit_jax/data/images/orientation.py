"""The EXIF orientation of an image, and nothing else of its EXIF block.

Cameras and programs write blocks that no library can read whole. The pixels do not depend on them:
where the orientation cannot be read, an image stays as it is stored.
"""

import re
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

_ORIENTATION = 0x0112
# EXIF 2.32: what makes an image upright whose orientation is stored so.
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The same for an array [height, width, channels].
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
# By the type of a tag: BYTE, SHORT, LONG.
_VALUE_CODES = {1: "B", 3: "H", 4: "I"}
_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")


def upright(image: Image.Image) -> Image.Image:
    """The loaded image, turned or mirrored as its orientation says."""
    method = _METHODS.get(orientation(image))
    return image if method is None else image.transpose(method)


def upright_array(pixels: np.ndarray, stored: int) -> np.ndarray:
    """A view of pixels [height, width, channels] whose orientation is `stored`, upright."""
    turn = _TURNS.get(stored)
    return pixels if turn is None else turn(pixels)


def orientation(image: Image.Image) -> int:
    """The orientation of an opened image: 1 to 8, or any other number for none."""
    if isinstance(image, TiffImageFile):
        try:
            found = image.tag_v2.get(_ORIENTATION)
        except Exception:  # Pillow reads tags late, and may raise anything on broken ones.
            found = None
        return found if isinstance(found, int) else 1
    for block in (image.info.get("exif"), _png_profile(image)):
        if isinstance(block, bytes) and (value := _of_exif(block)) is not None:
            return value
    for name in ("XML:com.adobe.xmp", "xmp"):
        text = image.info.get(name)
        if isinstance(text, str):
            text = text.encode(errors="ignore")
        if isinstance(text, bytes) and (match := _XMP.search(text)):
            return int(match[1])
    return 1


def _of_exif(block: bytes) -> int | None:
    """The orientation in an EXIF block: its first directory is searched as far as it goes."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, entry)
            if tag == _ORIENTATION:
                return int(struct.unpack_from(f"{order}{_VALUE_CODES[kind]}", block, entry + 8)[0])
    except (struct.error, KeyError):
        pass
    return None


def _png_profile(image: Image.Image) -> bytes | None:
    """EXIF as ImageMagick writes it into a PNG's text: three lines, then hexadecimal digits."""
    text = image.info.get("Raw profile type exif")
    if not isinstance(text, str):
        return None
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return None
