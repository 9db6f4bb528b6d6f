"""Kinds of pixels beyond 8-bit RGB: their values are right, or the kind is refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import distance, encode, pixels, tiff
from vit_jax.data.images.decoding import decode
from vit_jax.data.images.errors import ImageError

COLOURS = pixels(30, 40)
GREY = COLOURS[..., 0]
RGB_GREY = np.repeat(GREY[..., None], 3, axis=-1)


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as raised:
        decode(data)
    return str(raised.value)


def png16(samples: np.ndarray, colour: int) -> bytes:
    """A PNG of 16-bit samples [height, width, channels], which Pillow cannot write in colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items())


def deep(image: np.ndarray, factor: int) -> np.ndarray:
    return np.atleast_3d(image).astype(np.uint16) * factor


def test_floats_from_0_to_1_are_scaled() -> None:
    # As scikit-image's img_as_float and OpenCV write them.
    assert distance(decode(tiff(np.float32(GREY[..., None] / 255))), RGB_GREY) == 0
    assert (
        distance(decode(tiff(np.float32(1 - GREY[..., None] / 255), tag_262=(0,))), RGB_GREY) == 0
    )


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1), (0, 1.02), (0, 65535), (-30, 0)])
def test_floats_of_another_range_are_refused(low: float, high: float) -> None:
    values = np.linspace(low, high, 48, dtype=np.float32).reshape(6, 8, 1)
    assert "floats from " in refusal(tiff(values))


def test_floats_that_are_not_finite_are_refused() -> None:
    for value in (np.nan, np.inf, -np.inf):
        values = np.full((6, 8, 1), 0.5, np.float32)
        values[3, 4] = value
        assert "floats" in refusal(tiff(values))


@pytest.mark.parametrize("factor", [1, 257, -100])
@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int16, np.int8])
def test_integers_without_a_known_range_are_refused(factor: int, dtype: type) -> None:
    assert "integers " in refusal(tiff((GREY.astype(int) * factor).astype(dtype)[..., None]))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("kind", ["grey png", "grey tiff", "rgb", "rgba", "grey and alpha"])
def test_fewer_bits_in_16_are_refused(bits: int, kind: str) -> None:
    factor = 2 ** (bits - 8)
    grey, colours = deep(GREY, factor), deep(COLOURS, factor)
    opaque = np.full_like(grey, 65535)
    data = {
        "grey png": lambda: png16(grey, 0),
        "grey tiff": lambda: tiff(grey),
        "rgb": lambda: png16(colours, 2),
        "rgba": lambda: png16(np.dstack([colours, opaque]), 6),
        "grey and alpha": lambda: png16(np.dstack([grey, opaque]), 4),
    }[kind]()
    assert "16 bits a value, but none above " in refusal(data)


def test_all_of_16_bits_are_read() -> None:
    grey, colours = deep(GREY, 257), deep(COLOURS, 257)
    opaque = np.full_like(grey, 65535)
    for data in (png16(grey, 0), tiff(grey), png16(np.dstack([grey, opaque]), 4)):
        assert distance(decode(data), RGB_GREY) == 0
    for data in (png16(colours, 2), tiff(colours), png16(np.dstack([colours, opaque]), 6)):
        assert distance(decode(data), COLOURS) == 0
    # Black is black in any number of bits.
    assert np.asarray(decode(png16(0 * grey, 0))).max() == 0


def test_a_tiff_of_12_bits_is_scaled_by_them() -> None:
    values = GREY.astype(int) * 4095 // 255
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1)
    data = tiff(packed.astype(np.uint8).reshape(30, -1, 1), tag_256=(40,), tag_258=(12,))
    assert distance(decode(data), RGB_GREY) <= 1


def test_where_0_is_white_16_bits_are_turned_round() -> None:
    # As radiographs are stored.
    assert distance(decode(tiff(65535 - deep(GREY, 257), tag_262=(0,))), RGB_GREY) == 0


def test_a_pgm_of_any_range_is_scaled_by_it() -> None:
    values = GREY.astype(int) * 4095 // 255
    data = b"P5\n40 30\n4095\n" + values.astype(">u2").tobytes()
    assert distance(decode(data), RGB_GREY) <= 1
    assert "none above" in refusal(b"P5\n40 30\n65535\n" + values.astype(">u2").tobytes())
    colours = COLOURS.astype(int) * 4095 // 255
    assert "none above" in refusal(b"P6\n40 30\n65535\n" + colours.astype(">u2").tobytes())


def test_other_colours() -> None:
    assert "LAB colours" in refusal(encode(Image.fromarray(COLOURS).convert("LAB"), "TIFF"))
    half = np.dstack([COLOURS // 2, np.full(GREY.shape, 128, np.uint8)])
    # Multiplied by alpha (extra sample 1): divided by it again.
    assert distance(decode(tiff(half, tag_338=(1,))), COLOURS) <= 3
    ycbcr = encode(Image.fromarray(COLOURS).convert("YCbCr"), "TIFF")
    assert np.abs(np.asarray(decode(ycbcr), float) - COLOURS).mean() < 2


def test_what_pillow_cannot_open_is_named_as_such() -> None:
    colours = tiff(np.float32(COLOURS / 255))
    assert "unknown pixel mode" in refusal(colours)


def test_an_array_of_16_bits_as_an_opened_image() -> None:
    image = Image.fromarray(deep(GREY, 257)[..., 0])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert distance(decode(buffer.getvalue()), RGB_GREY) == 0
