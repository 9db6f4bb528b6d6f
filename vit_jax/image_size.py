"""Sizes of images and grids: typed and printed as HEIGHTxWIDTH."""

import re

_SIZE = re.compile(r"([0-9]+)(?:x([0-9]+))?", re.ASCII)


def parse_size(text: str) -> int | tuple[int, int]:
    """Reads `224`, the side of a square, or `384x512`, height times width.

    Raises:
      ValueError: the text is neither.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write 224 or HEIGHTxWIDTH, such as 384x512")
    height, width = match.groups()
    return int(height) if width is None else (int(height), int(width))


def format_size(size: tuple[int, int]) -> str:
    """Height and width as `384x512`."""
    return f"{size[0]}x{size[1]}"
