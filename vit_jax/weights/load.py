"""From a weight file to the parameters of a given model."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params, abstract_params
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.schema import build
from vit_jax.weights.files import read_weights
from vit_jax.weights.transfer import adapt

_log = logging.getLogger(__name__)

# What no array of the file shows, and what would make the same parameters another function.
_MUST_AGREE = ("pooling", "positions", "gelu", "norm_epsilon")


def load_params(path: str | os.PathLike[str], model: ModelConfig) -> tuple[Params, ModelConfig]:
    """Reads weights, and fits positions and head to the model (`transfer.adapt`); says so.

    Args:
      path: a `.npz` file in Google's layout, or the directory of a run that has ended.
      model: with `num_classes` set. Without `preprocessing`, it gets that of the weights.

    Returns:
      Nested numpy parameters, and the model with its preprocessing.

    Raises:
      UserError: the file cannot be read, or is not of such a model.
    """
    params, description = read_weights(path)
    saved = (description or {}).get("model", {})
    _check_agreement(path, saved, model)
    try:
        if model.preprocessing is None and saved.get("preprocessing") is not None:
            preprocessing = build(
                PreprocessingConfig, saved["preprocessing"], "model.preprocessing"
            )
            model = dataclasses.replace(model, preprocessing=preprocessing)
        params, notes = adapt(
            params,
            abstract_params(model),
            old_grid=_grid(saved, model),
            new_grid=model.grid,
            has_class_token=model.has_class_token,
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _log.info("weights of %s%s", path, "".join(f"; {note}" for note in notes))
    return params, model


def _check_agreement(path: str | os.PathLike[str], saved: Mapping[str, Any], model: ModelConfig):
    for key in _MUST_AGREE:
        if key in saved and saved[key] != getattr(model, key):
            raise UserError(
                f"{path}: the weights were trained with {key}={saved[key]}, the model has "
                f"{getattr(model, key)}; use --config.model.{key}={saved[key]}"
            )


def _grid(saved: Mapping[str, Any], model: ModelConfig) -> tuple[int, int] | None:
    size = saved.get("image_size")
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return height // model.patch_size, width // model.patch_size
