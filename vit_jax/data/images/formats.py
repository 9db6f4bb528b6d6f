"""The raster formats that are read, told apart by their first bytes.

Nothing else is ever handed to Pillow. It also knows formats that are programs (EPS, which it gives
to Ghostscript), or that lead to other files.
"""

import io
import struct
from collections.abc import Callable

from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TgaImagePlugin import TgaImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from vit_jax.data.images.errors import ImageError

# As many bytes show which format it is.
HEAD_BYTES = 64

# Names of the formats, for people.
NAMES = "AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TGA, TIFF, WebP"

# Endings under which files are taken for images without a look into them.
SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".gif"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".avif"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    ]
)
# Raw files of cameras begin like a TIFF; what Pillow finds in them is a small preview.
RAW_SUFFIXES = frozenset(
    [".arw", ".cr2", ".dng", ".erf", ".kdc", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".srw"]
)

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_TGA_IMAGES, _TGA_DEPTHS = (1, 2, 3, 9, 10, 11), (8, 15, 16, 24, 32)


def format_of(head: bytes) -> str | None:
    """The format, in Pillow's spelling, of a file that begins with `head`; None for any other.

    Args:
      head: at least the first `HEAD_BYTES` bytes, or the whole file.
    """
    for name, begins in _BEGINNINGS.items():
        if begins(head):
            return name
    return None


def open_image(data: bytes) -> ImageFile:
    """Opens encoded bytes of one of the formats of this module. No pixel is decoded yet.

    Raises:
      ImageError: the format is not one of them.
      Exception: whatever Pillow raises on damaged bytes.
    """
    name = format_of(data[:HEAD_BYTES])
    if name is None:
        raise ImageError("cannot read the image (not in a known format)")
    if name != "AVIF":
        return _OPENERS[name](io.BytesIO(data))
    try:
        return AvifImageFile(io.BytesIO(data))
    except (SyntaxError, ValueError):
        # Pillow and libavif parse EXIF while they open a file. By another name they pass over it.
        return AvifImageFile(io.BytesIO(data.replace(b"Exif", b"none")))


class _Jpeg(JpegImageFile):
    """Without Pillow's search for a resolution in EXIF, which may be broken."""

    def _read_dpi_from_exif(self) -> None:
        pass


class _Tiff(TiffImageFile):
    """Without Pillow's reading of all tags and its own rotation after decoding."""

    def load_end(self) -> None:
        """Does nothing."""


_OPENERS: dict[str, type[ImageFile]] = {
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "JPEG": _Jpeg,
    "JPEG2000": Jpeg2KImageFile,
    "PNG": PngImageFile,
    "PPM": PpmImageFile,
    "TGA": TgaImageFile,
    "TIFF": _Tiff,
    "WEBP": WebPImageFile,
}


def _is_bmp(head: bytes) -> bool:
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS


def _is_avif(head: bytes) -> bool:
    brands = head[8 : int.from_bytes(head[:4], "big")]
    return head[4:8] == b"ftyp" and any(brand in brands for brand in (b"avif", b"avis"))


def _is_ppm(head: bytes) -> bool:
    """P1 to P6, white space, then a size or a comment."""
    return (
        head[:1] == b"P"
        and head[1:2] in b"123456"
        and head[2:3] in b" \t\r\n"
        and (head[2:].lstrip()[:1] in b"#0123456789")
    )


def _is_tga(head: bytes) -> bool:
    """TGA has no signature; its header is that of an image if all its numbers make sense."""
    if len(head) < 18:
        return False
    _, has_map, kind, map_start, map_size, map_depth, _, _, width, height, depth, flags = (
        struct.unpack("<BBBHHBHHHHBB", head[:18])
    )
    if kind not in _TGA_IMAGES or depth not in _TGA_DEPTHS or flags & 0xC0:
        return False
    needs_map = kind in (1, 9)
    if needs_map != bool(has_map) or has_map > 1:
        return False
    is_map_sound = map_depth in (15, 16, 24, 32) and 0 < map_size <= 256
    is_sound = is_map_sound if needs_map else not (map_start or map_size or map_depth)
    return is_sound and width > 0 and height > 0 and (depth == 8 or kind in (2, 10, 3, 11))


_BEGINNINGS: dict[str, Callable[[bytes], bool]] = {
    "JPEG": lambda head: head.startswith(b"\xff\xd8\xff"),
    "PNG": lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
    "GIF": lambda head: head.startswith((b"GIF87a", b"GIF89a")),
    "WEBP": lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
    "TIFF": lambda head: head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    "JPEG2000": lambda head: head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    "BMP": _is_bmp,
    "AVIF": _is_avif,
    "PPM": _is_ppm,
    "TGA": _is_tga,
}
