"""The orientation in an image's EXIF data, sound or broken, as cameras and programs write it."""

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.data.pictures import distance, encode, outcome, pillow, pixels
from vit_jax.data.images.decoding import decode

ORIENTATION = 0x0112


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
