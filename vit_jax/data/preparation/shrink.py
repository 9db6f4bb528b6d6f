"""Makes images smaller while a data set is prepared."""

from __future__ import annotations

import io

from PIL import Image

# Libjpeg's scale. At 95 a second encoding costs less than the reduction itself.
JPEG_QUALITY = 95


def shrink(data: bytes, image: Image.Image, short_side: int) -> bytes:
    """An encoded image whose shorter side is at most `short_side` pixels.

    One that is no larger stays as it is, byte for byte. Others are reduced by Pillow's Lanczos
    filter, which is antialiased, and written as JPEG of quality 95 with Pillow's usual subsampling
    of colours (4:2:0). They are upright, in RGB and without EXIF.

    Args:
      data: the encoded image.
      image: what `decoding.decode` makes of it.
      short_side: in pixels, at least 1.
    """
    shorter = min(image.size)
    if shorter <= short_side:
        return data
    width, height = (max(round(side * short_side / shorter), 1) for side in image.size)
    reduced = image.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    reduced.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
