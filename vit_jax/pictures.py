"""Figures in one style, as bytes. They are drawn by matplotlib, which the extra `plots` brings."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from vit_jax.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")

# Text stays text, so that it can be searched, and scales with a page.
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vit_jax",
    "text.parse_math": False,  # Names of classes and files may hold dollar signs.
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
}


def require_plots(where: str) -> None:
    """Checks that figures can be drawn.

    Args:
      where: what needs them, for the message, such as `--output=scores.png`.

    Raises:
      UserError: matplotlib is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"{where}: a picture needs the extra `plots`: pip install 'vit_jax[plots]'")


@contextmanager
def style(font_size: float = 11) -> Iterator[None]:
    """Figures that are made inside have the style.

    Args:
      font_size: in points.
    """
    import matplotlib as mpl

    with mpl.rc_context({**_STYLE, "font.size": font_size}):
        yield


def as_bytes(figure: Figure, suffix: str, dpi: float = 150) -> bytes:
    """A figure as the content of a file.

    Args:
      suffix: one of `SUFFIXES`.
      dpi: pixels an inch of a PNG.
    """
    file = io.BytesIO()
    with style(), warnings.catch_warnings():
        # Names may hold letters that the font lacks; a browser has glyphs of its own.
        warnings.filterwarnings("ignore", message="Glyph")
        metadata = {"Date": None} if suffix == ".svg" else None
        figure.savefig(file, format=suffix.removeprefix("."), dpi=dpi, metadata=metadata)
    return file.getvalue()


def is_picture(path: PurePath) -> bool:
    """Whether a file is named like one of a figure."""
    return path.suffix in SUFFIXES
