"""What a weight layout is: how a library names a model's parameters and describes the model.

A layout is one file that ends in a `Layout`, a record of functions. `layouts/registry.py` lists
those of this package; `register_layout` adds another.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params
from vit_jax.weights.stored import AnyArray

ImageSize = int | tuple[int, int]
# A JSON object, and JSON objects by the name of their file.
Json = Mapping[str, Any]
Configs = Mapping[str, Json]
# Fields of `ModelConfig` by name; those that nothing states are missing.
Values = dict[str, Any]
# Keys that are more alike than this are one key, misspelt; no two keys of these libraries are.
_SLIP = 0.85


@dataclass(frozen=True)
class Described:
    """What the files beside the arrays state.

    Attributes:
      values: fields of `ModelConfig`.
      class_names: of the head's classes, in their order.
      layout: the layout that the file is in; only our own description states it.
      extra: more that only our own description holds, such as `step` and `loss` of a run.
    """

    values: Values = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    layout: str | None = None
    extra: Json = field(default_factory=dict)


def _nothing_described(configs: Configs) -> Described:
    return Described()


def _no_configs(
    model: ModelConfig, class_names: tuple[str, ...] | None, loss: str | None
) -> dict[str, Json]:
    return {}


def _no_defaults(file_name: str, shorter_side: int) -> Values:
    return {}


def known_keys(section: type, config: Json, *others: str) -> Json:
    """The part of a library's config that a dataclass describes; null is as missing.

    Args:
      section: the dataclass.
      config: with any other keys, which say nothing that matters here.
      others: names of more keys that are read.

    Raises:
      UserError: a key is missing, and another differs from it by a slip or a damaged letter.
    """
    names = {*(each.name for each in fields(section)), *others}
    missing = names - config.keys()
    for key in sorted(config.keys() - names):
        if meant := difflib.get_close_matches(key, missing, n=1, cutoff=_SLIP):
            raise UserError(f"its config has the key {key!r}; did you mean {meant[0]!r}?")
    named = {each.name for each in fields(section)}
    return {key: value for key, value in config.items() if key in named and value is not None}


@dataclass(frozen=True)
class Layout:
    """How one library writes the weights of a model.

    Reading goes in this order: `matches`, `read_config`, `read`, `defaults`. The config comes
    before the arrays, because arrays alone do not show everything, such as the number of heads.

    Attributes:
      name: as in `--layout=NAME`.
      suffix: ending of its files, `.npz` or `.safetensors`.
      matches: (names of a file's arrays, configs beside it) -> whether the file is in this layout.
      read: (arrays, what is described, image size if known) -> the nested parameters, which may be
        `StoredArray`s, and fields of `ModelConfig` that their names show beyond what
        `architecture.infer_model` reads off the shapes. Raises `UserError` for names or shapes
        that it does not understand, and lists them all.
      write: (nested parameters, model) -> arrays by name. Raises `UserError` if the layout has no
        form for the model.
      hidden: fields of `ModelConfig` that no array shows.
      config_names: the library's own config files, which lie beside its `model.safetensors`.
      read_config: (those configs that exist) -> what they state; nothing if they are another
        library's. Raises `UserError` for what it does not understand.
      write_configs: (model, class names, loss of the head if known) -> each of those configs.
      defaults: (name of the weight file, shorter side of its images in pixels) -> values of
        `hidden` fields for a file without any description. A missing field gets the default of
        the model's family.
    """

    name: str
    suffix: str
    matches: Callable[[Collection[str], Configs], bool]
    read: Callable[[Mapping[str, AnyArray], Described, ImageSize | None], tuple[Params, Values]]
    write: Callable[[Params, ModelConfig], dict[str, np.ndarray]]
    hidden: tuple[str, ...] = ("gelu", "norm_epsilon", "preprocessing")
    config_names: tuple[str, ...] = ()
    read_config: Callable[[Configs], Described] = _nothing_described
    write_configs: Callable[[ModelConfig, tuple[str, ...] | None, str | None], dict[str, Json]] = (
        _no_configs
    )
    defaults: Callable[[str, int], Values] = _no_defaults
