"""From a weight file to a model, or to the parameters of a given model."""

import dataclasses
import logging
import math
import os
from typing import Unpack

import jax
import numpy as np
from flax import nnx, traverse_util

from vit_jax.errors import UserError
from vit_jax.models.config import INHERITED, ModelConfig
from vit_jax.models.functional import Params, abstract_model, abstract_params
from vit_jax.models.model import Model
from vit_jax.models.options import ModelOptions
from vit_jax.schema import convert, to_dict
from vit_jax.weights.catalogue.names import resolve
from vit_jax.weights.files import Weights, in_words, open_weights
from vit_jax.weights.transfer import PositionResize, adapt_params

_log = logging.getLogger(__name__)


def load_model(
    name: str | None = None,
    *,
    weights: str | os.PathLike[str],
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    position_resize: PositionResize = "aligned",
    **options: Unpack[ModelOptions],
) -> Model:
    """Loads a model with the parameters of a file.

    Args:
      name: such as `ViT-B/16`; it must be the file's model. With another patch side than the
        file's, the patch embedding is resized.
      weights: a file, the directory of a finished run, or the name of a released file or of a
        repository of the Hugging Face Hub, `hf://ORG/NAME[@REVISION]`, which is downloaded once.
      image_size: pixels, a side or (height, width); None keeps the file's.
      num_classes: None keeps the file's head, 0 removes it, and any other number than the file's
        gives a head of zeros.
      position_resize: how positions are resized to another image size.
      **options: other fields of `ModelConfig`, such as `dtype="bfloat16"`. With a new head, a
        representation layer is dropped unless `representation_size` asks for it.

    Returns:
      A module that maps float images [batch, height, width, 3] to logits [batch, num_classes];
      `preprocess` makes such images. `config` describes the model; `class_names` are its classes
      if they are known, and `loss` is the loss that its head was trained with if a description
      that we wrote beside the file states it.

    Raises:
      UserError: the file cannot be found or read, holds another model, or an option is unknown.
    """
    named = {"name": name, "image_size": image_size, "num_classes": num_classes}
    given = {key: value for key, value in named.items() if value is not None}
    changes = convert(ModelConfig, to_dict(options) | given, "load_model")
    opened = open_weights(resolve(os.fspath(weights)), changes.get("image_size"))
    if name is not None:
        _require_size(opened, name)
    if changes.get("num_classes", opened.model.num_classes) != opened.model.num_classes:
        changes.setdefault("representation_size", None)
    # Inherited again, because preprocessing depends on the image size. How attention is computed
    # depends on the devices at hand, not on the weights.
    defaults = {field.name: field.default for field in dataclasses.fields(ModelConfig)}
    inherited = {key: defaults[key] for key in (*INHERITED, "preprocessing", "attention")}
    wanted = dataclasses.replace(opened.model, **{**inherited, **changes})
    params, config = params_for(opened, wanted, position_resize)
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
      weights: as opened.
      model: with `num_classes` set. It inherits from the weights what it leaves open.
      position_resize: how positions are resized to another image size.
      keep_head: whether a head that differs from the weights' is an error.

    Returns:
      Nested `StoredArray`s, and the model with all inherited fields filled in.

    Raises:
      UserError: the weights are not those of such a model.
    """
    _require_kind(weights, model)
    for key in INHERITED:
        own, other = getattr(weights.model, key), getattr(model, key)
        # What was assumed of the weights, the user may know better.
        if not _is_open(model, key) and own != other and key not in weights.assumed:
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
    open_keys = [key for key in weights.assumed if _is_open(model, key)]
    model = model.completed(weights.model)
    # The preprocessing in the words of the size that is used.
    assumed = [in_words(model, key) or weights.assumed[key] for key in open_keys]
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
        _log.warning("nothing beside the weights describes them; assumed: %s", ", ".join(assumed))
    return params, model


def read_params(params: Params) -> Params:
    """Reads stored parameters into arrays on the default device, one after the other.

    The largest comes first, so that no large array exists twice when nearly all are in memory.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    arrays = {}
    for path in sorted(flat, key=lambda path: -math.prod(flat[path].shape)):
        # The host's copy stays in memory until the transfer is done, so wait for it.
        arrays[path] = jax.device_put(np.asarray(flat[path])).block_until_ready()
    return traverse_util.unflatten_dict(arrays, sep="/")


def _is_open(model: ModelConfig, key: str) -> bool:
    """Whether a model leaves a field to the weights; class names are never a model's own."""
    return getattr(model, key, None) in (None, "inherit")


def _require_size(weights: Weights, name: str) -> None:
    held, named = weights.model, ModelConfig(name)
    if (held.family, held.shape) != (named.family, named.shape):
        shape = ", ".join(f"{key}={value}" for key, value in held.shape.items())
        raise UserError(
            f"{weights.path}: holds {weights.model.name} ({shape}), not {name}; name that model, "
            "or leave the name out"
        )


def _require_kind(weights: Weights, model: ModelConfig) -> None:
    """Refuses what messages about single parameters would not explain."""
    held = weights.model
    if (held.family, held.activation_order) != (model.family, model.activation_order):
        raise UserError(
            f"{weights.path}: the weights are of {held.name}, the model is {model.name}; choose "
            "the model that they were made for"
        )
    if model.family == "mixer" and held.grid != model.grid:
        (rows, columns), (wanted_rows, wanted_columns) = held.grid, model.grid
        raise UserError(
            f"{weights.path}: a Mixer's weights are for one number of patches, {rows}x{columns}, "
            f"and the model has {wanted_rows}x{wanted_columns}; use image_size={held.image_size}"
        )
