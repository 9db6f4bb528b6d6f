"""Values that several commands take."""

import argparse
from pathlib import Path


def file_path(text: str) -> Path:
    """A path, in which `~` is the home directory; shells leave it alone behind `--flag=`.

    Raises:
      argparse.ArgumentTypeError: it is an address, of which `Path` would make a local folder.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} must be a local or mounted path")
    return Path(text).expanduser()


def image_size(text: str) -> int | tuple[int, int]:
    """`224` or `HEIGHTxWIDTH`, in pixels.

    Raises:
      ValueError: the text is neither.
    """
    sides = [int(side) for side in text.split("x")]
    if len(sides) > 2:
        raise ValueError(text)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def steps(text: str) -> range:
    """`FIRST:LAST`, steps of a run, counted from 1.

    Raises:
      ValueError: the text is not that, or names no step.
    """
    first, last = (int(step) for step in text.split(":"))
    if not 1 <= first <= last:
        raise ValueError(text)
    return range(first, last + 1)
