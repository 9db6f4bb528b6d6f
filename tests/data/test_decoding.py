"""From encoded bytes to RGB, whatever the bytes are."""

import io
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image
from PIL.PngImagePlugin import PngInfo

from tests.data.pictures import distance, encode, noise, pixels, tiff
from vit_jax.data.images.decoding import decode
from vit_jax.data.images.errors import ImageError

ORIENTATION = 0x0112


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def outcome(data: bytes) -> np.ndarray | None:
    """Pixels, or None for an `ImageError` of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about corrupt EXIF data.
        try:
            image = decode(data)
        except ImageError as error:
            assert str(error).startswith("cannot read the image (") and "\n" not in str(error)
            assert " at 0x" not in str(error)
            return None
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_come_back_exact(form: str) -> None:
    for image in (pixels(13, 29), noise(1, 1), noise(1, 40), noise(40, 1)):
        assert distance(decode(encode(image, form)), image) == 0


@pytest.mark.parametrize("options", [{}, {"keep_rgb": True}, {"progressive": True}])
def test_a_fine_jpeg_is_nearly_the_image(options: dict[str, bool]) -> None:
    image = pixels(75, 131)
    found = decode(encode(image, "JPEG", quality=98, subsampling=0, **options))
    assert distance(found, image) <= 5


def test_grey_and_cmyk_jpeg() -> None:
    image = pixels(40, 50)
    grey = decode(encode(image[..., 0], "JPEG", quality=95))
    assert grey.mode == "RGB"
    # The deviation of JPEG at this quality.
    assert distance(grey, np.repeat(image[..., :1], 3, axis=-1)) < 12
    cmyk = encode(Image.fromarray(image).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(np.asarray(decode(cmyk), np.float64) - image).mean() < 3


def test_a_jpeg_of_which_libjpeg_only_warns_is_read() -> None:
    data = encode(pixels(40, 50), "JPEG")
    junk = bytes(range(1, 200))  # As in many of the files of Cats vs. Dogs.
    assert distance(decode(data[:-2] + junk + data[-2:]), decode(data)) == 0


def test_png_modes() -> None:
    image = pixels(20, 30)
    grey = image[..., 0]
    assert distance(decode(encode(grey)), np.stack([grey] * 3, axis=-1)) == 0
    palette = Image.fromarray(image).quantize(256)
    assert distance(decode(encode(palette)), palette.convert("RGB")) == 0
    bits = Image.fromarray(grey > 127)
    assert distance(decode(encode(bits)), np.stack([(grey > 127) * 255] * 3, axis=-1)) == 0
    alpha = np.dstack([image, np.full(grey.shape, 3, np.uint8)])
    assert distance(decode(encode(alpha)), image) == 0
    assert distance(decode(encode(np.dstack([grey, grey]))), np.stack([grey] * 3, axis=-1)) == 0


def test_transparent_palettes_are_read_without_a_warning() -> None:
    palette = Image.fromarray(pixels(20, 30)).quantize(256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(encode(palette, transparency=bytes(range(256))))
    assert distance(image, palette.convert("RGB")) == 0


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(form: str) -> None:
    values = np.array([[0, 257, 32768, 65535, 128, 129]], np.uint16)
    assert np.asarray(decode(encode(values, form)))[0, :, 0].tolist() == [0, 1, 128, 255, 0, 1]


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "green", "blue")]
    for form in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert getattr(Image.open(io.BytesIO(data)), "n_frames", None) == 3
        assert distance(decode(data), frames[0]) == 0


# EXIF 2.32, tag Orientation: where row 0 and column 0 of the stored image lie.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = pixels(24, 40)
    upright = UPRIGHT[orientation]
    jpeg = encode(image, "JPEG", exif=exif)
    assert distance(decode(jpeg), upright(pillow(jpeg))) == 0
    assert distance(decode(encode(image, exif=exif)), upright(image)) == 0
    deep = encode(image[..., 0].astype(np.uint16) * 257, exif=exif)
    assert distance(np.asarray(decode(deep))[..., 1], upright(image[..., 0])) == 0


@pytest.mark.parametrize(
    "exif", [b"", b"garbage", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff"]
)
def test_broken_exif_does_no_harm(exif: bytes) -> None:
    data = encode(pixels(24, 40), "JPEG", exif=b"Exif\0\0" + exif)
    assert distance(outcome(data), pillow(encode(pixels(24, 40), "JPEG"))) == 0


def exif(*entries: tuple[int, int, int, int], order: str = "<") -> bytes:
    """An EXIF block of (tag, type, count, value)."""
    block = b"II*\0" if order == "<" else b"MM\0*"
    block += struct.pack(f"{order}IH", 8, len(entries))
    for tag, kind, count, value in entries:
        code = {3: "HHIHxx"}.get(kind, "HHII")
        block += struct.pack(f"{order}{code}", tag, kind, count, value)
    return b"Exif\0\0" + block + bytes(4)


TURNED = (ORIENTATION, 3, 1, 6)
UNSOUND = {
    "another tag's offset": exif(TURNED, (0x011A, 5, 1, 4000)),
    "another tag's type": exif(TURNED, (0x0131, 3, 1, 7), (0x0100, 2, 4, 0x41424344)),
    "another tag's count": exif((0x0110, 2, 2**32 - 1, 9), TURNED),
    "a type that does not exist": exif((0x0110, 77, 1, 9), TURNED),
    "the maker's part": exif(TURNED, (0x8769, 4, 1, 2**32 - 1)),
    "two headers": b"Exif\0\0" + exif(TURNED),
    "a long": exif((ORIENTATION, 4, 1, 6)),
    "the other order": exif(TURNED, (0x011A, 5, 1, 4000), order=">"),
    "no end": exif(TURNED)[:-4],
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kind", UNSOUND)
def test_an_orientation_beside_broken_tags_is_applied(form: str, kind: str) -> None:
    image = pixels(24, 40)
    options = {"lossless": True} if form == "WEBP" else {}
    plain = encode(image, form, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode(encode(image, form, exif=UNSOUND[kind], **options))
    assert distance(found, np.rot90(pillow(plain), -1)) == 0


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0garbagegarbage",
        exif(TURNED)[:14],
        exif((ORIENTATION, 2, 2, 6)),
        exif((ORIENTATION, 3, 1, 0)),
        exif((ORIENTATION, 3, 1, 9)),
        exif((0x0110, 2, 9, 9), *[(ORIENTATION + i, 3, 1, 6) for i in range(1, 9)]),
    ],
)
def test_where_no_orientation_can_be_read_pixels_stay(form: str, block: bytes) -> None:
    plain = encode(pixels(24, 40), form)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode(with_exif(plain, form, block))
    assert distance(found, pillow(plain)) == 0


def with_exif(data: bytes, form: str, block: bytes) -> bytes:
    """The image with an EXIF block, written without a look into it."""
    if form == "AVIF":  # Pillow parses what it writes; one of the same length takes the place.
        sound = exif(*[(0x0110, 3, 1, 1)] * 9)[6 : 6 + len(block.removeprefix(b"Exif\0\0"))]
        data = encode(pixels(24, 40), form, exif=exif(*[(0x0110, 3, 1, 1)] * 9))
        assert data.count(sound) == 1
        return data.replace(sound, block.removeprefix(b"Exif\0\0"))
    if form == "JPEG":
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    options = {"lossless": True} if form == "WEBP" else {}
    return encode(Image.open(io.BytesIO(data)), form, exif=block, **options)


def test_broken_profiles_of_imagemagick_do_no_harm() -> None:
    image = pixels(24, 40)
    for text in ("\nexif\n  12\nzzzzzz", "b'Exif\\x00'", "", "\n\n\n"):
        info = PngInfo()
        info.add_text("Raw profile type exif", text)
        assert distance(decode(encode(image, pnginfo=info)), image) == 0
    info = PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n  30\n{exif(TURNED).hex()}\n")
    assert distance(decode(encode(image, pnginfo=info)), np.rot90(image, -1)) == 0


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_the_orientation_of_a_tiff(compression: str) -> None:
    image = pixels(24, 40)
    for orientation, upright in UPRIGHT.items():
        tags = {ORIENTATION: orientation}
        data = encode(image, "TIFF", compression=compression, tiffinfo=tags)
        assert distance(decode(data), upright(image)) == 0


def test_eps_and_other_formats_never_reach_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    image = Image.fromarray(pixels(8, 8))
    eps = encode(image, "EPS")
    # With a binary preview, as some programs write it.
    binary = b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(eps)) + bytes(20) + eps
    others = [encode(image, form) for form in ("ICO", "PCX", "SGI", "PDF", "IM")]
    for data in (eps, binary, *others):
        with pytest.raises(ImageError, match="not in a known format"):
            decode(data)


def test_what_is_no_image() -> None:
    random = np.random.default_rng(0)
    for data in (b"", b"\0", b"not an image", b"\xff\xd8\xff", b"GIF89a", random.bytes(5000)):
        assert outcome(data) is None
    with pytest.raises(ImageError, match=r"^cannot read the image \(not in a known format\)$"):
        decode(b"not an image")


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("grey", [False, True])
def test_truncated_images_are_refused(form: str, grey: bool) -> None:
    image = pixels(24, 40)[..., 0] if grey else pixels(24, 40)
    data = encode(image, form)
    # The last bytes of a PNG are check sums and an end mark: without them no pixel is lost.
    needless = 4 + 4 + 12 if form == "PNG" else 0
    for length in range(0, len(data) - needless - 4, 5):
        assert outcome(data[:length]) is None, length
    for length in range(len(data) - needless - 4, len(data)):
        found = outcome(data[:length])
        assert found is None or distance(found, decode(data)) == 0


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


VALID = [
    encode(pixels(16, 24), "JPEG"),
    encode(pixels(16, 24), "JPEG", progressive=True),
    encode(pixels(16, 24)),
    encode(Image.fromarray(pixels(16, 24)).quantize(32)),
    encode(pixels(16, 24)[..., 0].astype(np.uint16) * 257),
    encode(pixels(16, 24), "WEBP"),
    encode(Image.fromarray(pixels(16, 24)).quantize(32), "GIF"),
    encode(pixels(16, 24), "TIFF"),
    encode(pixels(16, 24), "BMP"),
]
EDIT = st.tuples(
    st.sampled_from(["flip", "cut", "insert"]), st.integers(0, 2**16), st.binary(min_size=1)
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(VALID), st.lists(EDIT, min_size=1, max_size=6))
def test_mutated_images_are_read_or_refused(
    data: bytes, edits: list[tuple[str, int, bytes]]
) -> None:
    mutated = bytearray(data)
    for kind, place, new in edits:
        place %= len(mutated)
        if kind == "flip":
            mutated[place : place + len(new)] = new[: len(mutated) - place]
        elif kind == "cut":
            del mutated[max(place, 1) : place + len(new)]
        else:
            mutated[place:place] = new
    outcome(bytes(mutated))
