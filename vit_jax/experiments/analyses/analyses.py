"""The analyses by name: what each computes of a model and of images, and how it is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_jax.analysis.attention_maps import attention_maps
from vit_jax.analysis.patch_filters import principal_filters
from vit_jax.analysis.position_similarity import added_positions, position_similarity
from vit_jax.data.sources.files import FileSource
from vit_jax.errors import UserError
from vit_jax.experiments.analyses import drawing
from vit_jax.experiments.analyses.attention import distances_of_images, rows_of_images
from vit_jax.inference.requests import Arrays
from vit_jax.models.model import Model
from vit_jax.models.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# As many pictures as figure 14 shows.
_ROLLOUT_AT_MOST = 128


@dataclass(frozen=True)
class Result:
    """What an analysis found.

    Attributes:
      numbers: nested lists and dicts, which JSON can hold; `unit` says what they are.
      summary: lines to print.
      draw: makes the figure; needs the extra `plots`.
    """

    numbers: dict[str, Any]
    summary: list[str]
    draw: Callable[[], "Figure"]


@dataclass(frozen=True)
class Analysis:
    """An analysis.

    Attributes:
      purpose: what it shows, and in which figure of the paper.
      needs_images: whether it looks at images; otherwise at the parameters alone.
      run: (model, image files) -> the result.
    """

    purpose: str
    needs_images: bool
    run: Callable[[Model, Sequence[str]], Result]


def rollout(model: Model, files: Sequence[str]) -> Result:
    """What the output sees of each image, by attention rollout (figures 6 and 14, D.8).

    Raises:
      UserError: the model has no attention, no image can be read, or there are more than 128.
    """
    if len(files) > _ROLLOUT_AT_MOST:
        raise UserError(
            f"rollout: {len(files)} images do not fit into one picture; give at most "
            f"{_ROLLOUT_AT_MOST} (predict --attention_maps=DIR writes a picture for each)"
        )
    config = model.config

    def seen(batch: Arrays) -> Arrays:
        maps = attention_maps(
            batch["attention"], config.grid, has_class_token=config.has_class_token
        )
        return {"maps": maps, "pixels": batch["images"]}

    found = rows_of_images(model, FileSource(files), "rollout", seen)
    maps, pixels = found.rows["maps"], found.rows["pixels"]
    names = [files[number] for number in found.numbers]
    images = [
        {"image": name, "map": _rounded(each)} for name, each in zip(names, maps, strict=True)
    ]
    return Result(
        {"unit": "share of the largest", "grid": list(config.grid), "images": images},
        found.summary,
        lambda: drawing.rollout(names, pixels, maps),
    )


def distance(model: Model, files: Sequence[str]) -> Result:
    """Mean attention distance of each head in each block (figures 7, right, and 11, D.7).

    Raises:
      UserError: the model has no attention, or no image can be read.
    """
    config = model.config
    found = distances_of_images(model, FileSource(files))
    means = found.rows["distances"].mean(axis=0, dtype=np.float64)
    lines = [
        f"block {block:>2}: {heads.mean():6.1f} pixels (heads from {heads.min():.1f} to "
        f"{heads.max():.1f})"
        for block, heads in enumerate(means, 1)
    ]
    height, width = config.input_size
    return Result(
        {
            "unit": "pixels",
            "image_size": [height, width],
            "images": len(found.numbers),
            "blocks": _rounded(means),
        },
        [*lines, *found.summary],
        lambda: drawing.distance(means, config.name, (height, width), len(found.numbers)),
    )


def filters(model: Model, files: Sequence[str]) -> Result:
    """The first principal components of the filters that embed patches (figure 7, left).

    Raises:
      UserError: the model does not embed patches of the image itself.
    """
    del files
    config = model.config
    embedding = getattr(model, "embedding", None)
    if embedding is None or config.resnet is not None:
        raise UserError(
            f"filters: a {config.name} embeds no patches of the image; take the weights of a ViT "
            "or a Mixer"
        )
    found = principal_filters(np.asarray(embedding.kernel[...], np.float32))
    share = found.explained.sum()
    return Result(
        {
            "unit": "filters of length 1, [height, width, RGB]",
            "explained": _rounded(found.explained),
            "filters": _rounded(found.filters),
        },
        [f"{len(found.filters)} components explain {share:.1%} of the filters' variance"],
        lambda: drawing.filters(found.filters),
    )


def positions(model: Model, files: Sequence[str]) -> Result:
    """The similarity of position embeddings (figures 7, centre, and 10, D.4).

    Raises:
      UserError: the model adds no embeddings to its patches.
    """
    del files
    config = model.config
    embeddings = added_positions(model) if isinstance(model, ViT) else np.zeros(())
    if not embeddings.any():
        raise UserError(
            f"positions: this {config.name} adds no position embeddings to its patches; take "
            "weights that have them"
        )
    found = position_similarity(embeddings, config.grid)
    rows, columns = config.grid
    return Result(
        {
            "unit": "cosine of [row, column] with [row, column]",
            "grid": [rows, columns],
            "similarity": _rounded(found),
        },
        [f"similarity of {rows * columns} position embeddings, {rows} rows of {columns}"],
        lambda: drawing.positions(found),
    )


ANALYSES = {
    "rollout": Analysis("what the output sees of each image, Figures 6 and 14", True, rollout),
    "distance": Analysis(
        "how far each head of each block looks, in pixels, Figures 7 and 11", True, distance
    ),
    "filters": Analysis("principal components of the patch filters, Figure 7", False, filters),
    "positions": Analysis("similarity of position embeddings, Figures 7 and 10", False, positions),
}


def _rounded(values: np.ndarray) -> Any:
    """As nested lists; five digits are more than bfloat16 has."""
    return np.round(np.asarray(values, np.float64), 5).tolist()
