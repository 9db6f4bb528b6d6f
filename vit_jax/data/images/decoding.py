"""From encoded bytes to upright 8-bit RGB images."""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.formats import open_image
from vit_jax.data.images.pixels import upright_rgb

# One image takes no more memory than this, its file and a cropped copy included.
MEMORY_LIMIT = 2**30
# Pillow's 4 bytes a pixel, and as many for a copy that is upright, in RGB or cropped; and a
# pointer for each row of both.
_BYTES_PER_PIXEL, _BYTES_PER_ROW = 8, 16
# Where decoding itself takes more: peaks of Pillow 13 at 9 megapixels, rounded up.
_BY_FORMAT = {"WEBP": 16.5, "JPEG2000": 20.0, "AVIF": 10.6}
BY_JPEG_MODE = {"RGB": 10.2, "CMYK": 12.2}
# Tags of TIFF.
_BITS_PER_SAMPLE, _TILE_WIDTH, _TILE_HEIGHT = 258, 322, 323


def decode(data: bytes) -> Image.Image:
    """Encoded bytes to an upright 8-bit RGB image. The first frame of an animation is taken.

    The formats are those of `formats.py`; the bytes tell, not the name. An image that would take
    more than 1 GiB of memory is refused before it is decoded; 100 megapixels of JPEG or PNG fit.

    Raises:
      ImageError: the bytes cannot be read, for whatever reason.
    """
    with _any_reason():
        image = open_image(data)
        require_memory_of(image, len(data))
        return upright_rgb(image)


def stored_size(data: bytes) -> tuple[int, int]:
    """Height and width that the header of an image claims, before EXIF turns it.

    Raises:
      ImageError: as for `decode`; the pixels are not looked at.
    """
    with _any_reason():
        image = open_image(data)
        return image.height, image.width


@contextmanager
def _any_reason() -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # Decoders raise nearly anything on broken bytes.
        raise as_image_error(error) from error


def as_image_error(error: Exception) -> ImageError:
    """An error of one line for whatever a decoder has raised."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return ImageError(f"cannot read the image ({reason})")


def require_memory_of(image: ImageFile, file_bytes: int) -> None:
    """Refuses what would take too much memory, by what the opened image's header claims."""
    per_pixel = max(_BYTES_PER_PIXEL, _BY_FORMAT.get(image.format or "", 0.0))
    if image.format == "JPEG" and (image.info.get("progressive") or image.mode == "RGB"):
        # All coefficients of a progressive file wait for its last scan.
        per_pixel = max(per_pixel, BY_JPEG_MODE.get(image.mode, 0.0))
    if isinstance(image, TiffImageFile):
        # A strip or tile may be as large as the image, or claim to be larger.
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))
        stored = sum(bits) / 8
        per_pixel = max(per_pixel, 4 + stored)
        tile = image.tag_v2.get(_TILE_WIDTH, 0) * image.tag_v2.get(_TILE_HEIGHT, 0)
        file_bytes += int(tile * stored)
    require_memory(image.width, image.height, file_bytes, per_pixel)


def require_memory(
    width: int, height: int, file_bytes: int, per_pixel: float = _BYTES_PER_PIXEL
) -> None:
    """Refuses an image of so many pixels and bytes a pixel that would take too much memory."""
    pixels = width * height
    needed = file_bytes + pixels * per_pixel + height * _BYTES_PER_ROW
    if needed > MEMORY_LIMIT:
        raise ImageError(
            f"cannot read the image ({width} x {height} = {pixels} pixels would take "
            f"{needed / 2**30:.1f} GiB of memory, above 1 GiB: make it smaller)"
        )
