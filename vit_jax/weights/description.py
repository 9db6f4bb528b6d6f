"""`NAME.json` beside a weight file: the model with its preprocessing, its classes, and more."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import get_args

from vit_jax.errors import UserError
from vit_jax.losses import Loss
from vit_jax.models.config import ModelConfig
from vit_jax.models.saved import upgrade
from vit_jax.schema import convert, to_dict
from vit_jax.version import __version__
from vit_jax.weights.layouts.layout import Described, Json

_OWN_KEYS = ("layout", "model", "class_names", "vit_jax")

_log = logging.getLogger(__name__)


def description_path(path: Path) -> Path:
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
    return {
        "layout": layout,
        "model": to_dict(model),
        "class_names": None if class_names is None else list(class_names),
        "vit_jax": __version__,
        **extra,
    }


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
    values, class_names = stated.get("model", {}), stated.get("class_names")
    if not isinstance(values, dict) or not isinstance(class_names, list | None):
        raise UserError(
            f"in its description {file.name} the model must be an object and the class names a "
            "list; correct or remove it"
        )
    extra = {key: value for key, value in stated.items() if key not in _OWN_KEYS}
    if extra.get("loss") not in (None, *get_args(Loss)):
        raise UserError(
            f"its description {file.name} has loss={extra['loss']!r}, which is none of "
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
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"its description {path.name} cannot be read ({text}); correct or remove it"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"its description {path.name} is not a JSON object; correct or remove it")
    return value


def json_bytes(value: Json) -> bytes:
    """A JSON object as the bytes of a file: indented, equal for equal objects."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
