"""The figures of the analyses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_jax import pictures
from vit_jax.analysis.attention_maps import overlay
from vit_jax.plain import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Images side by side, each with its overlay below it.
_IMAGES_A_ROW = 8
# Letters of a file's name for which there is room.
_NAME_AT_MOST = 22


def rollout(files: Sequence[str], pixels: np.ndarray, maps: np.ndarray) -> Figure:
    """Each image, and below it what the output sees.

    Args:
      pixels: uint8 [images, height, width, 3].
      maps: float [images, rows, columns], from 0 to 1.
    """
    from matplotlib.figure import Figure

    columns = min(_IMAGES_A_ROW, len(files))
    rows = math.ceil(len(files) / columns)
    with pictures.style(6):
        figure = Figure(figsize=(1.5 * columns, 3.2 * rows), layout="constrained")
        axes = figure.subplots(2 * rows, columns, squeeze=False)
        for each in axes.flat:
            each.axis("off")
        for index, file in enumerate(files):
            row, column = divmod(index, columns)
            above, below = axes[2 * row, column], axes[2 * row + 1, column]
            above.imshow(pixels[index])
            above.set_title(plain(Path(file).name)[:_NAME_AT_MOST])
            below.imshow(overlay(pixels[index], maps[index]))
    return figure


def distance(means: np.ndarray, name: str, image_size: tuple[int, int], images: int) -> Figure:
    """A point for each head.

    Args:
      means: [depth, heads], in pixels.
    """
    from matplotlib.figure import Figure

    height, width = image_size
    with pictures.style(9):
        figure = Figure(figsize=(5, 4), layout="constrained")
        axes = figure.subplots()
        axes.grid(True)
        for head in range(means.shape[1]):
            axes.scatter(
                np.arange(1, len(means) + 1), means[:, head], s=14, label=f"head {head + 1}"
            )
        axes.set_xlabel("block")
        axes.set_ylabel("mean attention distance (pixels)")
        axes.set_ylim(bottom=0)
        count = "one image" if images == 1 else f"mean over {images} images"
        axes.set_title(f"{name}, {height}x{width} pixels, {count}")
        figure.legend(loc="outside right upper", fontsize=6)
    return figure


def filters(components: np.ndarray) -> Figure:
    """A tile for each component, its values stretched from black to white.

    Args:
      components: [count, height, width, 3].
    """
    from matplotlib.figure import Figure

    columns = min(7, len(components))
    rows = math.ceil(len(components) / columns)
    with pictures.style(9):
        figure = Figure(figsize=(0.9 * columns, 0.9 * rows + 0.4), layout="constrained")
        figure.suptitle("principal components of the patch filters", fontsize=9)
        for each in figure.subplots(rows, columns, squeeze=False).flat:
            each.axis("off")
        for axes, component in zip(figure.axes, components, strict=False):
            low, high = component.min(), component.max()
            axes.imshow((component - low) / (high - low))
    return figure


def positions(similarity: np.ndarray) -> Figure:
    """A tile for each patch: the similarity of its embedding with that of every patch.

    Args:
      similarity: [rows, columns, rows, columns], from -1 to 1.
    """
    from matplotlib.figure import Figure

    rows, columns = similarity.shape[:2]
    tiles = np.full((rows, rows + 1, columns, columns + 1), np.nan)
    tiles[:, :rows, :, :columns] = similarity.transpose(0, 2, 1, 3)
    picture = tiles.reshape(rows * (rows + 1), -1)[:-1, :-1]
    with pictures.style(9):
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        axes = figure.subplots()
        shown = axes.imshow(picture, vmin=-1, vmax=1, cmap="viridis", interpolation="nearest")
        for ticks, count in ((axes.set_xticks, columns), (axes.set_yticks, rows)):
            middles = [n * (count + 1) + (count - 1) / 2 for n in range(count)]
            ticks(middles, [str(n + 1) for n in range(count)])
        axes.set_xlabel("column of the patch")
        axes.set_ylabel("row of the patch")
        figure.colorbar(shown, label="cosine similarity")
    return figure
