"""What the attention of a model shows of each of many images."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vit_jax.data.sources.files import FileSource
from vit_jax.errors import UserError
from vit_jax.inference.local import on_local_devices
from vit_jax.inference.passes import Pass
from vit_jax.inference.prediction import batch_with_attention
from vit_jax.inference.requests import Arrays, Request
from vit_jax.models.model import Model


class Rows(NamedTuple):
    """What was asked of the images that can be read.

    Attributes:
      files: these images.
      rows: by name, an array with a row for each of them.
      summary: a line if others cannot be read.
    """

    files: list[str]
    rows: dict[str, np.ndarray]
    summary: list[str]


def rows_of_images(
    model: Model, files: Sequence[str], analysis: str, ask: Callable[[Arrays], Arrays]
) -> Rows:
    """Runs a model on image files, over all devices of this process.

    Args:
      analysis: its name, for messages.
      ask: as `Request.rows`; its batch has `attention` and `images`.

    Raises:
      UserError: the model has no attention, or no image can be read.
    """
    config = model.config
    if "attention" not in model.captured:
        raise UserError(f"{analysis}: a {config.name} has no attention; take the weights of a ViT")
    mesh, params = on_local_devices(model)
    request = Request(FileSource(files), outputs=("attention",), rows=ask)
    readable: list[str] = []
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
            readable += [files[batch.start + row] for row in kept]
            parts.append({k: np.asarray(v)[kept] for k, v in batch.rows[analysis].items()})
    if not readable:
        raise UserError(f"{analysis}: none of {len(files)} images can be read; check the files")
    lost = len(files) - len(readable)
    summary = [f"{lost} of {len(files)} images could not be read"] if lost else []
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Rows(readable, rows, summary)
