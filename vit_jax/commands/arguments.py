"""Values that several commands take."""

import argparse
import math
import re
from pathlib import Path

from vit_jax.image_size import parse_size


def file_path(text: str) -> Path:
    """Reads a path. `~` is the home directory, which shells do not replace after `--flag=`.

    Raises:
      argparse.ArgumentTypeError: the text is an address, which `Path` would make a local folder.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} must be a local or mounted path")
    return Path(text).expanduser()


def add_image_size(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--image_size`.

    Args:
      default: what the size is without it, for the help.
    """
    parser.add_argument(
        "--image_size",
        type=image_size,
        metavar="PIXELS|HEIGHTxWIDTH",
        help=f"image size in pixels, such as 224 or 384x512; default: {default}",
    )


def image_size(text: str) -> int | tuple[int, int]:
    """Reads `224` or `HEIGHTxWIDTH`, in pixels.

    Raises:
      argparse.ArgumentTypeError: the text is neither.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def minutes(text: str) -> float:
    """Reads a positive number of minutes.

    Raises:
      argparse.ArgumentTypeError: the text is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a positive number, such as 10 or 0.5")
    return value


def steps(text: str) -> range:
    """Reads `FIRST:LAST`, steps of a run, counted from 1.

    Raises:
      argparse.ArgumentTypeError: the text is not that, or names no step.
    """
    match = re.fullmatch(r"([1-9][0-9]*):([1-9][0-9]*)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} must be FIRST:LAST, such as 10:12")
    return range(int(match[1]), int(match[2]) + 1)


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Adds --seeds of variants that are compared."""
    parser.add_argument(
        "--seeds",
        type=seeds,
        default=(0, 1, 2),
        metavar="SEED,SEED,…",
        help="of each variant; a verdict takes at least three (0,1,2)",
    )


def seeds(text: str) -> tuple[int, ...]:
    """Reads seeds, such as `0,1,2`."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers, such as 0,1,2") from error
