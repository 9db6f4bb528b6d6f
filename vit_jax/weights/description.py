"""`NAME.json` beside a weight file: the model with its preprocessing, its classes, and more."""

from __future__ import annotations

import json
import logging
import os
import zlib
from pathlib import Path, PurePath
from typing import Any, TypeVar, get_args

from vit_jax.errors import UserError
from vit_jax.losses import Loss
from vit_jax.models.config import ModelConfig
from vit_jax.models.saved import upgrade
from vit_jax.schema import convert, to_dict
from vit_jax.version import __version__
from vit_jax.weights.kinds import read_json_object
from vit_jax.weights.layouts.layout import Described, Json

_CHECKSUM = "crc32"

# On a disk or in a bucket.
P = TypeVar("P", bound=PurePath)
_OWN_KEYS = ("layout", "model", "class_names", "vit_jax", _CHECKSUM)

_log = logging.getLogger(__name__)


def description_path(path: P) -> P:
    """Where the description of a weight file is."""
    return path.with_name(path.name.removesuffix(path.suffix) + ".json")


def make_description(
    layout: str,
    model: ModelConfig,
    class_names: tuple[str, ...] | None,
    extra: Json,
) -> Json:
    """The description as JSON holds it.

    Args:
      layout: of the arrays, or the form of an exported model.
      extra: more to state, such as `{"step": 100}`.
    """
    stated = {
        "layout": layout,
        "model": to_dict(model),
        "class_names": None if class_names is None else list(class_names),
        "vit_jax": __version__,
        **extra,
    }
    return sealed(stated)


def sealed(stated: Json) -> Json:
    """A description with the checksum of all that it states now."""
    rest = {key: value for key, value in stated.items() if key != _CHECKSUM}
    return {**rest, _CHECKSUM: _checksum(rest)}


def read_description(path: Path) -> Described | None:
    """Reads what the description of a weight file states; None if it has no description.

    Logs the version of this package that wrote it, if it is not this one.

    Raises:
      UserError: the description cannot be read, or states what no model is.
    """
    file = description_path(path)
    stated = read_json(file)
    if stated is None:
        return None
    if _CHECKSUM in stated and stated[_CHECKSUM] != sealed(stated)[_CHECKSUM]:
        raise UserError(
            f"its description {file.name} is damaged, or was changed by hand; copy it again, or "
            f'remove its line "{_CHECKSUM}" if it is as you want it'
        )
    values, class_names = stated.get("model", {}), stated.get("class_names")
    if not isinstance(values, dict) or not _are_names(class_names):
        raise UserError(
            f"in its description {file.name} the model must be an object and the class names a "
            "list of texts; correct or remove it"
        )
    extra = {key: value for key, value in stated.items() if key not in _OWN_KEYS}
    if extra.get("loss") not in (None, *get_args(Loss)):
        raise UserError(
            f"the weights' description {file.name} has loss={extra['loss']!r}, not one of "
            f"{', '.join(get_args(Loss))}; correct it"
        )
    # A description by hand has no layout.
    if "layout" in stated and (version := stated.get("vit_jax", "0.1.0")) != __version__:
        _log.info("%s was written by vit_jax %s, and this is %s", path, version, __version__)
    return Described(
        values=convert(ModelConfig, upgrade(values), "model"),
        class_names=None if class_names is None else tuple(class_names),
        layout=stated.get("layout"),
        extra=extra,
    )


def read_json(path: Path) -> Json | None:
    """Reads a JSON object that lies beside a weight file; None if the file is missing.

    Raises:
      UserError: it cannot be read, or holds something else.
    """
    if not os.path.lexists(path):  # A dangling link is there, and cannot be read.
        return None
    try:
        return read_json_object(path)
    except UserError as error:
        raise UserError(f"its description {error}; correct or remove it") from error


def _are_names(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and all(isinstance(name, str) for name in value)
    )


def _checksum(stated: Json) -> str:
    """A checksum of all that a description states. White space does not matter."""
    return f"{zlib.crc32(json_bytes(stated)):08x}"


def json_bytes(value: Json) -> bytes:
    """A JSON object as the bytes of a file: indented, equal for equal objects."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
