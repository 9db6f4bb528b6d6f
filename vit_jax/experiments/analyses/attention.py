"""What the attention of a model shows of each of many images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax import Array

from vit_jax.analysis.attention_distance import attention_distances
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.inference.local import on_local_devices
from vit_jax.inference.passes import Pass
from vit_jax.inference.prediction import batch_with_attention
from vit_jax.inference.requests import Arrays, Request
from vit_jax.models.model import Model


class Rows(NamedTuple):
    """What was asked of the images that can be read.

    Attributes:
      numbers: of these images in the source.
      rows: by name, an array with a row for each of them.
      summary: a line if others cannot be read.
    """

    numbers: list[int]
    rows: dict[str, np.ndarray]
    summary: list[str]


def rows_of_images(
    model: Model, source: Source, analysis: str, ask: Callable[[Arrays], Arrays]
) -> Rows:
    """Runs a model on images, over all devices of this process.

    Args:
      analysis: its name, for messages.
      ask: as `Request.rows`; its batch has `attention` and `images`.

    Raises:
      UserError: the model has no attention, or no image can be read.
    """
    config = model.config
    if "attention" not in model.captured:
        raise UserError(
            f"{analysis}: {config.name} has no attention over all patches; take the weights of a "
            "ViT or a hybrid"
        )
    mesh, params = on_local_devices(model)
    request = Request(source, outputs=("attention",), rows=ask)
    readable: list[int] = []
    parts: list[dict[str, np.ndarray]] = []
    with Pass(
        config,
        mesh,
        {analysis: request},
        batch_size=batch_with_attention(config),
        workers=0,
        on_error="ignore",
    ) as each:
        for batch in each.stream(params):
            kept = np.flatnonzero(batch.readable).tolist()
            readable += [batch.start + row for row in kept]
            parts.append({k: np.asarray(v)[kept] for k, v in batch.rows[analysis].items()})
    if not readable:
        raise UserError(f"{analysis}: none of {len(source)} images can be read; check the files")
    lost = len(source) - len(readable)
    summary = [f"{lost} of {len(source)} images could not be read"] if lost else []
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Rows(readable, rows, summary)


def distances_of_images(model: Model, source: Source) -> Rows:
    """How far each head of each block looks, in pixels (figures 7 and 11, D.7).

    Returns:
      `distances`, float32 [images, depth, heads].

    Raises:
      UserError: the model has no attention, or no image can be read.
    """
    config = model.config

    def measured(batch: Arrays) -> Arrays:
        of_images: Array = attention_distances(
            batch["attention"],
            config.grid,
            config.patch_size,
            has_class_token=config.has_class_token,
        )
        return {"distances": of_images}

    return rows_of_images(model, source, "distance", measured)
