"""Features of image files that have no labels, batch by batch, so that any number fits."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vit_jax.data.sources.files import FileSource
from vit_jax.errors import UserError
from vit_jax.inference.features import FeatureConfig
from vit_jax.inference.local import on_local_devices
from vit_jax.inference.passes import Pass
from vit_jax.inference.prediction import why_unreadable
from vit_jax.inference.requests import Arrays, Request
from vit_jax.models.model import Model


class Embedded(NamedTuple):
    """The features of some images.

    Attributes:
      images: the files that can be read.
      features: float32 [images, ...]; see `FeatureConfig.select`.
      errors: why others cannot be read, by file.
    """

    images: list[str]
    features: np.ndarray
    errors: dict[str, str]


def embed(
    model: Model,
    files: Sequence[str],
    config: FeatureConfig | None = None,
    *,
    batch_size: int | None = None,
    workers: int = 0,
) -> Iterator[Embedded]:
    """Features of image files, in their order, on all devices of this process.

    Args:
      config: None takes what the head sees.
      batch_size, workers: as in `prediction.predict`.

    Raises:
      UserError: the model has no such features, or `batch_size` is below 1.
    """
    config = config or FeatureConfig()
    config.check(model)
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size={batch_size} must be at least 1")
    return _batches(model, files, config, batch_size, workers)


def _batches(
    model: Model,
    files: Sequence[str],
    config: FeatureConfig,
    batch_size: int | None,
    workers: int,
) -> Iterator[Embedded]:
    def rows(batch: Arrays) -> Arrays:
        return {"features": config.select(batch, model.config)}

    mesh, params = on_local_devices(model)
    requests = {"features": Request(FileSource(files), outputs=config.outputs, rows=rows)}
    with Pass(
        model.config, mesh, requests, batch_size=batch_size, workers=workers, on_error="ignore"
    ) as each:
        for batch in each.stream(params):
            own = files[batch.start : batch.start + len(batch.readable)]
            yield Embedded(
                [file for file, readable in zip(own, batch.readable, strict=True) if readable],
                batch.rows["features"]["features"][batch.readable],
                {
                    file: why_unreadable(model, file)
                    for file, readable in zip(own, batch.readable, strict=True)
                    if not readable
                },
            )
