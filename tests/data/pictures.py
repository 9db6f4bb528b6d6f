"""Images for tests, and how much two of them differ."""

import io
import struct
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vit_jax.data.images.decoding import decode
from vit_jax.data.images.errors import ImageError

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


def tiff(samples: np.ndarray, **tags: tuple[int, ...]) -> bytes:
    """An uncompressed TIFF, little-endian, of any samples [height, width, channels]."""
    height, width, channels = samples.shape
    bits = samples.dtype.itemsize * 8
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    stored: dict[int, tuple[int, ...]] = {
        **{256: (width,), 257: (height,), 258: (bits,) * channels, 259: (1,)},
        **{262: (2 if channels > 1 else 1,), 273: (0,), 277: (channels,), 278: (height,)},
        **{279: (samples.nbytes,), 339: (kind,) * channels},
    }
    stored |= {int(tag.removeprefix("tag_")): values for tag, values in tags.items()}
    place = 8 + 2 + 12 * len(stored) + 4
    longer = {tag: values for tag, values in stored.items() if len(values) > 1}
    stored[273] = (place + 4 * sum(map(len, longer.values())),)
    entries, after = b"", b""
    for tag, values in sorted(stored.items()):  # All are of type LONG.
        value = place + len(after) if tag in longer else values[0]
        entries += struct.pack("<HHII", tag, 4, len(values), value)
        after += struct.pack(f"<{len(values)}I", *values) if tag in longer else b""
    directory = struct.pack("<H", len(stored)) + entries + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + after + samples.tobytes()


def distance(a: Picture, b: Picture) -> float:
    """The largest difference of two images, in levels of 0 to 255."""
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert one.shape == other.shape
    return float(np.abs(one - other).max())


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
