"""A config's run where its data or weights are missing: with the data set's published sizes."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from vit_jax.data.config import DataConfig
from vit_jax.data.sources.published import absent_source
from vit_jax.data.sources.records import Source
from vit_jax.errors import NoDataError
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import open_training, part_for_training
from vit_jax.weights.catalogue.names import is_in_bucket


class Sized(NamedTuple):
    """What a run is made of, without records or weights that are missing.

    Attributes:
      config: without weights to start from, if they are missing.
      missing: why the training data cannot be read; None if it can.
      start: in words, what the run starts from.
    """

    config: TrainConfig
    source: Source
    missing: str | None
    start: str


def open_sized(config: TrainConfig) -> Sized:
    """Opens the training data, or takes its published numbers of examples and classes.

    Raises:
      NoDataError: it is missing, and its size is not published.
    """
    source, missing = _source(config.data)
    start = config.init_from or "random parameters"
    if config.init_from is not None and not _is_there(config.init_from):
        # What the weights would decide about the model has its default then.
        start = f"{start}, which is not a file here and was not read"
        config = dataclasses.replace(
            config, init_from=None, init_head=None, position_resize="aligned"
        )
    return Sized(config, source, missing, start)


def _source(data: DataConfig) -> tuple[Source, str | None]:
    try:
        return open_training(data), None
    except NoDataError as error:
        published = absent_source(data.dataset, data.train)
        if published is None:
            raise
        return part_for_training(data, published), error.problem


def _is_there(start: str) -> bool:
    return is_in_bucket(start) or Path(start).expanduser().exists()
