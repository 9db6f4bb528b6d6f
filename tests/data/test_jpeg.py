"""JPEG without Pillow in between: the pixels are Pillow's, and so is what is refused."""

import io
import struct
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.pictures import distance, encode, noise, pillow, pixels
from vit_jax.data.images import jpeg
from vit_jax.data.images.decoding import decode
from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.jpeg import Box, decode_array

simplejpeg = pytest.importorskip("simplejpeg")

SEGMENT = struct.Struct(">BBH")


def segment(marker: int, body: bytes) -> bytes:
    return SEGMENT.pack(0xFF, marker, len(body) + 2) + body


def after_start(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def without(data: bytes, marker: int) -> bytes:
    """The file less its first segment of a kind."""
    start = data.index(bytes((0xFF, marker)))
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4]) :]


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


IMAGE = pixels(93, 141)
PLAIN: dict[str, bytes] = {
    **{
        f"4:{name}": encode(IMAGE, "JPEG", subsampling=f"4:{name}")
        for name in ("4:4", "2:2", "2:0")
    },
    "fine": encode(noise(93, 141), "JPEG", quality=98),
    "coarse": encode(noise(93, 141), "JPEG", quality=5),
    "grey": encode(IMAGE[..., 0], "JPEG"),
    "rgb": encode(IMAGE, "JPEG", keep_rgb=True),
    "one pixel": encode(pixels(1, 1), "JPEG"),
    "one row": encode(pixels(1, 60), "JPEG"),
    "one column": encode(pixels(60, 1), "JPEG"),
    "whole blocks": encode(pixels(96, 144), "JPEG"),
    "optimised": encode(IMAGE, "JPEG", optimize=True),
}
RARE: dict[str, bytes] = {
    "progressive": encode(IMAGE, "JPEG", progressive=True),
    "grey progressive": encode(IMAGE[..., 0], "JPEG", progressive=True),
    "restarts": encode(IMAGE, "JPEG", restart_marker_blocks=3),
    "restarts by rows": encode(IMAGE, "JPEG", restart_marker_rows=1),
    "adobe ycc": after_start(without(PLAIN["4:2:0"], 0xE0), adobe(1)),
    # The marker alone says that the values are red, green and blue.
    "adobe rgb": after_start(without(PLAIN["4:4:4"], 0xE0), adobe(0)),
    "no marker": without(PLAIN["4:2:0"], 0xE0),
    "a comment": after_start(PLAIN["4:2:0"], segment(0xFE, b"\xff\xd8\xff\xc0\xff\xda")),
    **{f"orientation {i}": encode(IMAGE, "JPEG", exif=oriented(i)) for i in range(1, 9)},
}
BY_PILLOW: dict[str, bytes] = {
    "cmyk": encode(Image.fromarray(IMAGE).convert("CMYK"), "JPEG"),
    "junk before the end": PLAIN["4:2:0"][:-2] + bytes(range(1, 200)) + PLAIN["4:2:0"][-2:],
    "png": encode(IMAGE),
    "webp": encode(IMAGE, "WEBP"),
}
KINDS = PLAIN | RARE | BY_PILLOW


def wanted(data: bytes) -> np.ndarray:
    """By Pillow alone, upright."""
    return np.asarray(decode(data))


def boxes(height: int, width: int) -> list[Box]:
    rng = np.random.default_rng(0)
    found = [(0, 0, width, height), (0, 0, 1, 1), (width - 1, height - 1, width, height)]
    for _ in range(12):
        left, right = sorted(rng.choice(width + 1, 2, replace=False)) if width > 1 else (0, 1)
        top, lower = sorted(rng.choice(height + 1, 2, replace=False)) if height > 1 else (0, 1)
        found.append((int(left), int(top), int(right), int(lower)))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_pillows_within_1(kind: str) -> None:
    data = KINDS[kind]
    found = decode_array(data)
    assert (found.dtype, found.shape) == (np.uint8, wanted(data).shape)
    assert distance(found, wanted(data)) <= 1
    if "orientation" not in kind:
        assert distance(found, pillow(data)) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_that_part_of_the_whole(kind: str) -> None:
    data = KINDS[kind]
    whole = decode_array(data)
    for left, top, right, lower in boxes(*whole.shape[:2]):
        sizes = []

        def part(height: int, width: int, box: Box = (left, top, right, lower)) -> Box:
            sizes.append((height, width))  # noqa: B023 (it is called in this turn)
            return box

        found = decode_array(data, part)
        assert distance(found, whole[top:lower, left:right]) == 0
        assert sizes == [whole.shape[:2]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What simplejpeg is given to fill, each time."""
    buffers: list[np.ndarray] = []
    real = simplejpeg.decode_jpeg

    def recorded(data: bytes, *, buffer: np.ndarray) -> Any:
        buffers.append(buffer)
        return real(data, buffer=buffer)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", recorded)
    return buffers


@pytest.mark.parametrize("kind", PLAIN)
def test_rows_below_a_part_are_left_out(kind: str, asked: list[np.ndarray]) -> None:
    data = PLAIN[kind]
    height = len(decode_array(data))
    decode_array(data, lambda height, width: (0, 0, width, min(height, 40)))
    assert len(asked[1]) == (44 if height >= 60 else height)


@pytest.mark.parametrize("kind", [*BY_PILLOW, "12 bits", "arithmetic", "lossless"])
def test_what_is_no_plain_jpeg_is_pillows(kind: str, asked: list[np.ndarray]) -> None:
    frame = PLAIN["4:2:0"].index(b"\xff\xc0")
    plain = bytearray(PLAIN["4:2:0"])
    if kind == "12 bits":
        plain[frame + 4] = 12
    elif kind in ("arithmetic", "lossless"):
        plain[frame + 1] = 0xC9 if kind == "arithmetic" else 0xC3
    data = BY_PILLOW.get(kind, bytes(plain))
    assert outcome(data) == by_pillow(data)
    if kind != "junk before the end":
        assert not asked


Outcome = tuple[tuple[int, ...], bytes] | str


def outcome(data: bytes, rows: int | None = None) -> Outcome:
    """Shape and pixels of the first rows, or the line of the error."""
    try:
        found = decode_array(
            data, None if rows is None else lambda height, width: (0, 0, width, min(height, rows))
        )
    except ImageError as error:
        return str(error)
    return found.shape, found.tobytes()


def by_pillow(data: bytes, rows: int | None = None) -> Outcome:
    try:
        found = wanted(data)[:rows]
    except ImageError as error:
        return str(error)
    return found.shape, found.tobytes()


@pytest.mark.parametrize("kind", ["4:2:0", "grey", "progressive", "restarts"])
def test_truncated_files_are_refused_with_pillows_line(kind: str) -> None:
    data = KINDS[kind]
    for length in range(0, len(data), 41):
        for rows in (None, 8):
            assert outcome(data[:length], rows) == by_pillow(data[:length], rows)
    assert "truncated" in str(outcome(data[: len(data) // 2], 8))


def close(a: Outcome, b: Outcome) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    one, other = (np.frombuffer(x[1], np.uint8).astype(int) for x in (a, b))
    return a[0] == b[0] and bool((np.abs(one - other) <= 1).all())


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(["4:2:0", "4:4:4", "grey", "progressive", "restarts", "orientation 6"]),
    st.lists(st.tuples(st.integers(2, 2**16), st.binary(min_size=1, max_size=4)), max_size=4),
    st.sampled_from([None, 1, 30, 60]),
)
def test_damaged_files_are_read_or_refused_as_by_pillow(
    kind: str, edits: list[tuple[int, bytes]], rows: int | None
) -> None:
    data = bytearray(KINDS[kind])
    for place, new in edits:
        place %= len(data)
        data[place : place + len(new)] = new[: len(data) - place]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about corrupt EXIF data.
        assert close(outcome(bytes(data), rows), by_pillow(bytes(data), rows))


def test_bombs_are_refused_before_they_are_decoded(asked: list[np.ndarray]) -> None:
    data = bytearray(PLAIN["4:2:0"])
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 50_000, 50_000)
    assert outcome(bytes(data)) == by_pillow(bytes(data))
    assert "GiB of memory" in str(outcome(bytes(data))) and not asked


@pytest.mark.parametrize("kind", KINDS)
def test_without_simplejpeg_pillow_decodes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = decode_array(KINDS[kind])
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    again = decode_array(KINDS[kind], lambda height, width: (0, 0, width, height))
    assert distance(found, again) <= 1


def test_other_bytes_are_refused() -> None:
    for data in (b"", b"\xff\xd8\xff", b"not an image", io.BytesIO(PLAIN["grey"]).read(30)):
        with pytest.raises(ImageError):
            decode_array(data)
