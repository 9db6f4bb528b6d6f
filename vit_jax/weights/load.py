"""From a weight file to the parameters of a given model, or to a model."""

import logging
import math
import os
from typing import Any

import jax
import numpy as np
from flax import nnx, traverse_util

from vit_jax.errors import UserError
from vit_jax.models.config import FOLLOWED, ModelConfig
from vit_jax.models.functional import Params, abstract_model, abstract_params
from vit_jax.models.model import Model
from vit_jax.schema import build, to_dict
from vit_jax.weights.catalogue.names import resolve
from vit_jax.weights.files import Weights, open_weights
from vit_jax.weights.transfer import PositionResize, adapt_params

_log = logging.getLogger(__name__)


def load_model(
    name: str | None = None,
    *,
    weights: str | os.PathLike[str],
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    position_resize: PositionResize = "aligned",
    **options: Any,
) -> Model:
    """A model with the parameters of a file.

    Args:
      name: such as `ViT-B/16`, to be checked against the file; with another patch side than the
          file's, the patch embedding is resized.
      weights: a file, the directory of a run that has ended, or the name of a released file, which
          is downloaded once.
      image_size: pixels, a side or (height, width); None is the file's.
      num_classes: None keeps the file's head, another number than the file's gives a head of
          zeros, 0 none.
      position_resize: how positions get to another image size.
      **options: other fields of `ModelConfig`, such as `dtype="bfloat16"`. With a new head a
          representation layer is dropped, unless `representation_size` asks for it.

    Returns:
      A module that maps float images [batch, height, width, 3] to logits [batch, num_classes];
      `preprocess` makes such images. `config` is what the model is, `class_names` are its classes
      if they are known, and `loss` is what the head was trained with, if what we write beside a
      file says it.

    Raises:
      UserError: the file cannot be had or read, is not of such a model, or an option is not one.
    """
    opened = open_weights(resolve(os.fspath(weights)), image_size)
    # Left open, to be followed: preprocessing depends on the image size. The kind of attention
    # depends on the devices at hand.
    left_open = dict.fromkeys((*FOLLOWED, "preprocessing"))
    wanted = to_dict(opened.model) | left_open | {"attention": "xla"} | to_dict(options)
    if image_size is not None:
        wanted["image_size"] = image_size
    if num_classes is not None:
        wanted["num_classes"] = num_classes
        if num_classes != opened.model.num_classes and "representation_size" not in options:
            wanted["representation_size"] = None
    if name is not None:
        _require_size(opened, name)
        wanted["name"] = name
    params, config = params_for(opened, build(ModelConfig, wanted, "load_model"), position_resize)
    model = nnx.merge(nnx.graphdef(abstract_model(config)), read_params(params))
    if config.num_classes == opened.model.num_classes:
        model.class_names, model.loss = opened.class_names, opened.extra.get("loss")
    return model


def params_for(
    weights: Weights,
    model: ModelConfig,
    position_resize: PositionResize = "aligned",
    *,
    keep_head: bool = False,
) -> tuple[Params, ModelConfig]:
    """Fits opened weights to a model (see `transfer.adapt_params`), and logs what it changes.

    Args:
      model: with `num_classes` set. What it leaves open it gets from the weights.
      keep_head: whether another head than the weights' is an error.

    Returns:
      Nested `StoredArray`s, and the model with nothing left open.

    Raises:
      UserError: the weights are not of such a model.
    """
    _require_kind(weights, model)
    for key in FOLLOWED:
        own, other = getattr(weights.model, key), getattr(model, key)
        if other is not None and own != other:
            raise UserError(
                f"{weights.path}: the weights were trained with {key}={own}, the model has "
                f"{other}; use --config.model.{key}={own}, or leave it out"
            )
    for key in ("num_classes", "representation_size") if keep_head else ():
        own, other = getattr(weights.model, key), getattr(model, key)
        if own != other:
            raise UserError(
                f"{weights.path}: the weights' head has {key}={own}, the model's {other}; use "
                f"--config.model.{key}={own}"
            )
    assumed = [words for key, words in weights.assumed.items() if getattr(model, key, None) is None]
    model = model.following(weights.model)
    try:
        params, notes = adapt_params(
            weights.params,
            abstract_params(model),
            old_grid=weights.model.grid,
            new_grid=model.grid,
            has_class_token=model.has_class_token,
            position_resize=position_resize,
        )
    except UserError as error:
        raise UserError(f"{weights.path}: {error}") from error
    _log.info("weights of %s%s", weights.path, "".join(f"; {note}" for note in notes))
    if assumed:
        _log.warning("assumed, for nothing beside the weights says so: %s", ", ".join(assumed))
    return params, model


def read_params(params: Params) -> Params:
    """Reads stored parameters into arrays on the default device, one after the other.

    The largest first, so that no large one is there twice when nearly all are there.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    arrays = {}
    for path in sorted(flat, key=lambda path: -math.prod(flat[path].shape)):
        # Waited for, because the host's copy stays in memory until then.
        arrays[path] = jax.device_put(np.asarray(flat[path])).block_until_ready()
    return traverse_util.unflatten_dict(arrays, sep="/")


def _require_size(weights: Weights, name: str) -> None:
    there, named = (model.shape for model in (weights.model, ModelConfig(name)))
    if there != named:
        shape = ", ".join(f"{key}={value}" for key, value in there.items())
        raise UserError(
            f"{weights.path}: holds {weights.model.name} ({shape}), not {name}; name that model, "
            "or leave the name out"
        )


def _require_kind(weights: Weights, model: ModelConfig) -> None:
    """What no message about single parameters would say as well."""
    there = weights.model
    if (there.family, there.unit_order) != (model.family, model.unit_order):
        raise UserError(
            f"{weights.path}: the weights are of {there.name}, the model is {model.name}; choose "
            "the model that they were made for"
        )
    if model.family == "mixer" and there.grid != model.grid:
        (rows, columns), (wanted_rows, wanted_columns) = there.grid, model.grid
        raise UserError(
            f"{weights.path}: a Mixer's weights are for one number of patches, {rows}x{columns}, "
            f"and the model has {wanted_rows}x{wanted_columns}; use image_size={there.image_size}"
        )
