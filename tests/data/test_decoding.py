"""From encoded bytes to RGB, whatever the bytes are."""

import io
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from tests.data.pictures import distance, encode, noise, outcome, pixels
from vit_jax.data.images.decoding import decode
from vit_jax.data.images.errors import ImageError


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
