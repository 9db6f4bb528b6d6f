"""Images that would take much memory: what is refused at once, and what the largest take."""

import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from tests.data.pictures import encode, pixels, tiff
from vit_jax.data.images.decoding import decode
from vit_jax.data.images.errors import ImageError


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(bytes(1000)), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items())


def jpeg_header(width: int, height: int, **options: Any) -> bytes:
    data = bytearray(encode(pixels(8, 8), "JPEG", **options))
    frame = data.index(b"\xff\xc2" if "progressive" in options else b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("header", [png_header, jpeg_header])
def test_decompression_bombs_are_refused_at_once(header: Callable[[int, int], bytes]) -> None:
    data = header(50_000, 50_000)
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(ImageError, match="2500000000 pixels"):
        decode(data)
    assert time.perf_counter() - began < 0.5
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def deep_png_header(width: int, height: int) -> bytes:
    return png_header(width, height, depth=16, colour=0)


def bmp_header(width: int, height: int) -> bytes:
    data = encode(pixels(8, 8), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def gif_header(width: int, height: int) -> bytes:
    assert max(width, height) < 2**16
    data = encode(Image.fromarray(pixels(8, 8)).quantize(8), "GIF")
    size = struct.pack("<HH", width, height)
    return data[:6] + size + data[10:]


def ppm_header(width: int, height: int) -> bytes:
    return b"P6 %d %d 255\n" % (width, height) + bytes(100)


def tiff_with_a_tile(width: int, height: int) -> bytes:
    """A TIFF of 8 x 8 pixels in a tile that claims to be much larger."""
    tile = {"tag_322": (width,), "tag_323": (height,), "tag_324": (200,), "tag_325": (192,)}
    return tiff(pixels(8, 8), tag_259=(5,), **tile)


@pytest.mark.parametrize(
    ("header", "width", "height"),
    [
        (deep_png_header, 13_000, 13_000),
        (deep_png_header, 1, 178_000_000),
        (png_header, 1, 178_000_000),
        (png_header, 12_000, 12_000),
        (jpeg_header, 11_000, 11_000),
        (bmp_header, 14_000, 10_000),
        (bmp_header, 1, 100_000_000),
        (gif_header, 65_535, 2_500),
        (ppm_header, 12_000, 12_000),
        (tiff_with_a_tile, 32_768, 32_768),
    ],
)
def test_what_would_take_a_gibibyte_is_refused_at_once(
    header: Callable[[int, int], bytes], width: int, height: int
) -> None:
    data = header(width, height)
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"GiB of memory, above 1 GiB"):
        decode(data)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


PEAK = """
import sys
from vit_jax.data.images import ImageError, decode
def memory(key):
    return next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith(key)) * 1024
data, before = sys.stdin.buffer.read(), memory("VmRSS")
try:
    size = decode(data).size
except ImageError as error:
    size = "truncated" in str(error)
print(size, memory("VmHWM") - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's counters")
@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (jpeg_header(10_000, 10_000), "(10000, 10000)"),
        # The costliest way to store as many: all coefficients wait for the last scan.
        (jpeg_header(10_000, 10_000, progressive=True, subsampling=0), "(10000, 10000)"),
        (png_header(10_000, 10_000), "True"),
        (png_header(10_000, 10_000, depth=16, colour=0), "True"),
    ],
    ids=["baseline", "progressive", "png", "png of 16 bits"],
)
def test_100_megapixels_take_less_than_a_gibibyte(data: bytes, wanted: str) -> None:
    run = subprocess.run([sys.executable, "-c", PEAK], input=data, capture_output=True, check=True)
    size, peak = run.stdout.decode().rsplit(maxsplit=1)
    assert size == wanted
    assert int(peak) < 2**30
