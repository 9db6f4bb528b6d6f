import io
import struct
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal

import jax
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from vit_jax.data.config import AffineConfig, DataConfig
from vit_jax.data.images.decoding import ImageError, decode
from vit_jax.data.images.geometry import Box, random_affine, resize, sample_crop
from vit_jax.data.images.transforms import EvalTransform, make_transform
from vit_jax.errors import UserError
from vit_jax.preprocessing import PreprocessingConfig

ORIENTATION = 0x0112

Picture = Image.Image | npt.ArrayLike | None


def pixels(height: int, width: int) -> np.ndarray:
    """Smooth and different in each channel and corner, so that JPEG keeps it."""
    y, x = np.mgrid[:height, :width]
    waves = (np.sin(x / 7) * np.cos(y / 9), np.sin((x + 2 * y) / 11), np.cos(x / 15 - y / 5))
    return np.stack([127 + 100 * wave + x % 5 for wave in waves], axis=-1).astype(np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def encode(image: Image.Image | np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def distance(a: Picture, b: Picture) -> float:
    """The largest difference of two images, in levels of 0 to 255."""
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert one.shape == other.shape
    return float(np.abs(one - other).max())


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


def test_32_bit_values_out_of_range_do_not_wrap() -> None:
    values = np.array([[-70000, 0, 65535, 65535 * 2]], np.int32)
    assert np.asarray(decode(encode(values, "TIFF")))[0, :, 0].tolist() == [0, 0, 255, 255]


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


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(bytes(1000)), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items())


def jpeg_header(width: int, height: int) -> bytes:
    data = bytearray(encode(pixels(8, 8), "JPEG"))
    frame = data.index(b"\xff\xc0")
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


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_crops_have_the_given_area_and_aspect(height: int, width: int, seed: int) -> None:
    left, top, right, bottom = sample_crop(height, width, (0.05, 1.0), np.random.default_rng(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    box_height, box_width = bottom - top, right - left
    if (box_height, box_width) == (height, width):
        return
    assert 0.05 <= box_height * box_width / (height * width) <= 1
    # Half a pixel of rounding in the width.
    assert 3 / 4 * box_height - 0.5 <= box_width <= 4 / 3 * box_height + 0.5


def test_a_crop_is_a_function_of_the_generator() -> None:
    def boxes(seed: int) -> list[Box]:
        rng = np.random.default_rng(seed)
        return [sample_crop(480, 640, (0.05, 1.0), rng) for _ in range(5)]

    assert boxes(7) == boxes(7) != boxes(8)


def test_the_distribution_of_crops() -> None:
    side, draws = 400, 4000
    rng = np.random.default_rng(0)
    boxes = np.array([sample_crop(side, side, (0.05, 1.0), rng) for _ in range(draws)])
    left, top, right, bottom = boxes.T
    width, height = right - left, bottom - top
    # As the aspect a is uniform in [3/4, 4/3] and the height uniform from sqrt(0.05 / a) to the
    # tallest that fits, min(sqrt(1 / a), 1 / a, 1) of the side, so goes the area a * height^2.
    aspect = np.linspace(3 / 4, 4 / 3, 1001)
    low = np.sqrt(0.05 / aspect)
    high = np.minimum(1, 1 / aspect)
    area = np.mean(aspect * (high**2 + high * low + low**2) / 3)
    assert np.mean(width * height) / side**2 == pytest.approx(area, abs=0.015)
    assert np.mean(width / height) == pytest.approx((3 / 4 + 4 / 3) / 2, abs=0.015)
    for first, size in ((left, width), (top, height)):
        room = side - size
        place = first[room > 40] / room[room > 40]
        # Uniform: mean 1/2, variance 1/12.
        assert place.mean() == pytest.approx(1 / 2, abs=0.02)
        assert place.var() == pytest.approx(1 / 12, abs=0.006)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (10, 2000), (2000, 10)])
def test_of_a_very_long_image_the_crop_is_the_whole(height: int, width: int) -> None:
    for seed in range(20):
        box = sample_crop(height, width, (0.05, 1.0), np.random.default_rng(seed))
        assert box == (0, 0, width, height)


def test_a_narrow_range_of_areas_is_kept() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = sample_crop(300, 300, (0.2, 0.25), rng)
        assert 0.2 <= (right - left) * (bottom - top) / 300**2 <= 0.25


SIZES = [(40, 60, 24, 24), (40, 60, 91, 77), (33, 20, 48, 17), (7, 9, 64, 5), (50, 50, 49, 50)]


@pytest.mark.parametrize("shapes", SIZES)
@pytest.mark.parametrize(
    ("method", "preprocessing"),
    [
        ("linear", PreprocessingConfig()),
        ("linear", PreprocessingConfig(antialias=True)),
        ("cubic", PreprocessingConfig(antialias=True, interpolation="bicubic")),
    ],
)
def test_resize_is_jax_image_resize(
    shapes: tuple[int, int, int, int], method: str, preprocessing: PreprocessingConfig
) -> None:
    height, width, *_ = shapes
    size = shapes[2:]
    # Noise of half the range: Pillow clips what cubic weights overshoot after each axis.
    for image in (pixels(height, width), noise(height, width) // 2 + 64):
        found = resize(Image.fromarray(image), size, preprocessing)
        exact = jax.image.resize(
            image.astype(np.float32), (*size, 3), method, antialias=preprocessing.antialias
        )
        # Pillow's cubic is Keys' with a = -1/2, as JAX's; it rounds after each of the two axes.
        assert distance(found, np.clip(exact, 0, 255)) <= (2 if method == "cubic" else 1.01)


def test_resize_to_its_own_size_is_exact() -> None:
    image = Image.fromarray(noise(9, 14))
    assert distance(resize(image, (9, 14), PreprocessingConfig()), image) == 0


def test_squash_is_the_whole_image_resized() -> None:
    image = Image.fromarray(pixels(40, 90))
    transform = EvalTransform((32, 48), PreprocessingConfig(antialias=True))
    assert (
        distance(transform(encode(image)), image.resize((48, 32), Image.Resampling.BILINEAR)) == 0
    )


def torchvision_resize(image: Image.Image, short_side: int) -> np.ndarray:
    """Resize(short_side) as torchvision documents it."""
    width, height = image.size
    if width <= height:
        width, height = short_side, int(short_side * height / width)
    else:
        width, height = int(short_side * width / height), short_side
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def torchvision_crop(image: Image.Image, short_side: int, size: int) -> np.ndarray:
    """Resize(short_side) and CenterCrop(size) as torchvision documents them."""
    resized = torchvision_resize(image, short_side)
    height, width = resized.shape[:2]
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)
    return resized[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(40, 90), (91, 40), (64, 64), (37, 38), (300, 17), (28, 28)])
@pytest.mark.parametrize("short_side", [28, 32, 33])
def test_short_side_is_torchvisions_resize_and_centre_crop(
    shape: tuple[int, int], short_side: int
) -> None:
    image = Image.fromarray(pixels(*shape))
    preprocessing = PreprocessingConfig(
        resize="short_side", short_side=short_side, interpolation="bicubic", antialias=True
    )
    found = EvalTransform((28, 28), preprocessing)(encode(image))
    assert distance(found, torchvision_crop(image, short_side, 28)) == 0


@pytest.mark.parametrize("shape", [(40, 90), (91, 40), (200, 30), (48, 72)])
@pytest.mark.parametrize("size", [(32, 48), (48, 32)])
def test_short_side_of_an_input_that_is_not_square(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """The centre of the image, enlarged alike in both directions until it covers the input."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    # Values are positions, so that the crop can be read off its own pixels.
    image = np.stack([255 * x / shape[1], 255 * y / shape[0], 0 * x], axis=-1).astype(np.uint8)
    preprocessing = PreprocessingConfig(resize="short_side", antialias=True)
    found = EvalTransform(size, preprocessing)(encode(image)).astype(np.float64)
    assert found.shape == (*size, 3)
    scale = max(size[0] / shape[0], size[1] / shape[1])
    for channel, (part, whole) in enumerate(zip(size[::-1], shape[::-1], strict=True)):
        first, last = found[..., channel].min() / 255, found[..., channel].max() / 255
        assert last - first == pytest.approx(part / (scale * whole), abs=0.06)
        assert (first + last) / 2 == pytest.approx(0.5, abs=0.04)


def test_short_side_enlarges_by_its_ratio_to_the_shorter_input_side() -> None:
    image = Image.fromarray(pixels(96, 144))
    preprocessing = PreprocessingConfig(resize="short_side", short_side=64, antialias=True)
    found = EvalTransform((32, 48), preprocessing)(encode(image))
    resized = np.asarray(image.resize((96, 64), Image.Resampling.BILINEAR))
    assert distance(found, resized[16:48, 24:72]) == 0


def test_training_without_a_crop_is_squash() -> None:
    data = encode(pixels(40, 90))
    config = DataConfig("./x", crop="none")
    found = make_transform((32, 48), PreprocessingConfig(), config)(data, np.random.default_rng(0))
    assert distance(found, EvalTransform((32, 48), PreprocessingConfig())(data)) == 0


def test_training_images_are_crops_by_the_generator() -> None:
    image = pixels(60, 90)
    transform = make_transform((32, 48), PreprocessingConfig(), DataConfig("./x"))
    for seed in range(5):
        left, top, right, bottom = sample_crop(60, 90, (0.05, 1), np.random.default_rng(seed))
        crop = Image.fromarray(image[top:bottom, left:right])
        found = transform(encode(image), np.random.default_rng(seed))
        assert (found.shape, found.dtype) == ((32, 48, 3), np.uint8)
        assert distance(found, resize(crop, (32, 48), PreprocessingConfig())) == 0


def positions(height: int, width: int) -> bytes:
    """An image whose values are its positions: red from left to right, green downwards."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([255 * x / (width - 1), 255 * y / (height - 1), 0 * x], axis=-1)
    return encode(image.round().astype(np.uint8))


def corners(
    crop: Literal["resize", "short_side"], crop_side: int, size: tuple[int, int], data: bytes
) -> np.ndarray:
    """Left and upper edge of random crops, and their spans, as shares of the image: [300, 4]."""
    preprocessing = PreprocessingConfig(antialias=True)
    config = DataConfig("./x", crop=crop, crop_side=crop_side)
    transform = make_transform(size, preprocessing, config)
    found, rng = [], np.random.default_rng(0)
    for _ in range(300):
        image = transform(data, rng).astype(np.float64) / 255
        assert image.shape == (*size, 3)
        left, top = image[..., 0].min(), image[..., 1].min()
        found.append((left, top, image[..., 0].max() - left, image[..., 1].max() - top))
    return np.array(found)


# The crop's sides and the room that it has, in the resized image's sides.
@pytest.mark.parametrize(
    ("crop", "size", "resized"),
    [
        ("resize", (24, 24), (32, 32)),
        ("resize", (24, 48), (32, 64)),
        ("short_side", (24, 24), (32, 96)),
        ("short_side", (24, 48), (32, 96)),
        ("short_side", (48, 24), (64, 192)),
    ],
)
def test_crops_of_the_resized_image_have_its_scale_and_any_place(
    crop: Literal["resize", "short_side"], size: tuple[int, int], resized: tuple[int, int]
) -> None:
    found = corners(crop, 32, size, positions(100, 300))
    shares = np.array(size) / resized
    # Between the centres of the outermost pixels; half a pixel at the edges, where values repeat.
    assert np.abs(found[:, 2:] - shares[::-1]).max() < 1.2 / np.array(resized)[::-1].min()
    for first, share, side in zip(found[:, :2].T, shares[::-1], resized[::-1], strict=True):
        assert len(np.unique(first.round(2))) > 5
        assert first.min() == pytest.approx(0, abs=1 / side)
        assert first.max() == pytest.approx(1 - share, abs=1 / side)
        # Uniform.
        assert first.mean() == pytest.approx((1 - share) / 2, abs=0.05)


def test_a_crop_that_leaves_no_room_is_the_resized_image() -> None:
    image = Image.fromarray(pixels(40, 90))
    config = DataConfig("./x", crop="resize", crop_side=32)
    transform = make_transform((32, 32), PreprocessingConfig(), config)
    found = transform(encode(image), np.random.default_rng(0))
    assert distance(found, resize(image, (32, 32), PreprocessingConfig())) == 0


def test_the_short_sides_crop_is_torchvisions_resize_and_a_box_of_it() -> None:
    image = Image.fromarray(pixels(40, 90))
    preprocessing = PreprocessingConfig(interpolation="bicubic", antialias=True)
    config = DataConfig("./x", crop="short_side", crop_side=32)
    found = make_transform((28, 28), preprocessing, config)(encode(image), np.random.default_rng(3))
    whole = torchvision_resize(image, 32)
    boxes = [
        whole[top : top + 28, left : left + 28]
        for top in range(32 - 28 + 1)
        for left in range(whole.shape[1] - 28 + 1)
    ]
    assert sum(np.array_equal(found, box) for box in boxes) == 1


def highest() -> Any:
    """A generator whose every uniform draw is the upper end."""
    return SimpleNamespace(uniform=lambda low, high: high)


def test_an_affine_of_nothing_is_the_identity() -> None:
    image = Image.fromarray(noise(23, 40))
    assert distance(random_affine(image, np.random.default_rng(0), AffineConfig()), image) == 0


def test_a_rotation_by_a_right_angle() -> None:
    image = noise(24, 24)
    found = random_affine(Image.fromarray(image), highest(), AffineConfig(rotate=90))
    # A positive angle turns x towards y, which points down: clockwise.
    assert distance(found, np.rot90(image, -1)) <= 1


def test_rotation_and_scale_are_scipys_about_the_centre() -> None:
    image = pixels(50, 70)
    found = random_affine(Image.fromarray(image), highest(), AffineConfig(rotate=20, scale=0.3))
    cos, sin = np.cos(np.radians(20)) / 1.3, np.sin(np.radians(20)) / 1.3
    matrix = np.array([[cos, -sin], [sin, cos]])  # rows, columns of the output to the input's
    centre = np.array([24.5, 34.5])

    def transform(plane: np.ndarray) -> np.ndarray:
        return ndimage.affine_transform(plane, matrix, centre - matrix @ centre, order=1)

    # Not the outermost half pixel, where Pillow repeats the edge and SciPy fades to black.
    inside = transform(np.ones(image.shape[:2])) > 0.999
    assert inside.mean() > 0.7
    for channel in range(3):
        expected = transform(image[..., channel].astype(np.float64))
        assert distance(np.asarray(found)[inside, channel], expected[inside]) <= 1.01


def test_a_shift_is_a_share_of_the_side_and_fills_with_black() -> None:
    image = noise(16, 32) // 2 + 100
    found = np.asarray(random_affine(Image.fromarray(image), highest(), AffineConfig(shift=0.25)))
    assert distance(found[4:, 8:], image[:-4, :-8]) <= 1
    assert found[:4].max() == found[:, :8].max() == 0


def test_shifts_stay_within_their_bound() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    places = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        moved = np.asarray(random_affine(Image.fromarray(image), rng, AffineConfig(shift=0.2)))
        places.append(ndimage.center_of_mass(moved[..., 0].astype(np.float64)))
    far = np.abs(np.array(places) - 20)
    # Within 0.2 * 41 pixels in both directions, and nearly there in some.
    assert far.max() <= 8.2 + 0.1
    assert far.max() > 7.5
    assert far.mean() == pytest.approx(4.1, abs=0.5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"batch_size": 0}, "batch_size must be between 1 and"),
        ({"workers": -1}, "workers must not be negative"),
        ({"crop_area": (0.0, 1.0)}, "crop_area must be"),
        ({"crop_area": (0.5, 0.4)}, "crop_area must be"),
        ({"crop_area": (0.5, 1.1)}, "crop_area must be"),
        ({"crop": "none", "crop_area": (0.2, 1.0)}, "crop_area would be ignored"),
        ({"crop": "resize", "crop_side": 9, "crop_area": (0.2, 1.0)}, "crop_area would be ignored"),
        ({"crop": "resize"}, "crop='resize' needs crop_side, in pixels"),
        ({"crop": "short_side"}, "crop='short_side' needs crop_side, in pixels"),
        ({"crop_side": 256}, "crop_side would be ignored"),
        ({"test_fraction": 1.0}, "test_fraction must be between 0 and 1"),
    ],
)
def test_data_configs_that_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        DataConfig("./x", **options)


@pytest.mark.parametrize(
    "options", [{"rotate": -1}, {"shift": -0.1}, {"scale": -0.1}, {"scale": 1}]
)
def test_affine_configs_that_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="none may be negative, and scale must be below 1"):
        AffineConfig(**options)
