"""A model as one file for serving: the known forms by name, and how such a file is written.

A form is one file that ends in an `Export`. `register_export` adds another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_jax.atomic import write_all
from vit_jax.errors import UserError
from vit_jax.inference.image_code import image_code
from vit_jax.inference.onnx import to_onnx
from vit_jax.inference.stablehlo import to_stablehlo
from vit_jax.models.model import Model
from vit_jax.spelling import nearest
from vit_jax.weights.archives import bytes_writer
from vit_jax.weights.description import description_path, json_bytes, make_description


@dataclass(frozen=True)
class Export:
    """A form of a model that runs without this package.

    Attributes:
      name: as in `convert --layout=NAME`.
      suffix: ending of its files.
      serialize: model -> the bytes of the file. What they hold is a function from the images that
        `taken_images` describes to float32 logits [batch, num_classes], for any batch size. Raises
        `UserError` if the form cannot hold the model.
    """

    name: str
    suffix: str
    serialize: Callable[[Model], bytes]


_KNOWN = (Export("stablehlo", ".stablehlo", to_stablehlo), Export("onnx", ".onnx", to_onnx))
_EXPORTS = {each.name: each for each in _KNOWN}


def register_export(export: Export) -> None:
    """Makes a form known under its name; a form of the same name is replaced."""
    _EXPORTS[export.name] = export


def export_names() -> tuple[str, ...]:
    """The names of all known forms."""
    return tuple(_EXPORTS)


def export_named(name: str) -> Export:
    """The form of a name.

    Raises:
      UserError: no form has this name.
    """
    if name not in _EXPORTS:
        raise UserError(f"no exported form {name!r}{nearest(name, _EXPORTS)}")
    return _EXPORTS[name]


def taken_images(model: Model) -> dict[str, Any]:
    """What an exported model takes, as its description states it.

    It is what `preprocess(images, model, normalized=False)` gives: resized and cropped pixels.
    """
    return {
        "name": "images",
        "dtype": "uint8",
        "range": [0, 255],
        "layout": "NHWC",
        "channels": "RGB",
        "shape": ["batch", *model.config.input_size, 3],
    }


def export_model(model: Model, path: str | os.PathLike[str], form: str = "stablehlo") -> None:
    """Writes a model with its parameters as one file.

    `NAME.json` beside it has the model with its preprocessing, what images it takes, the names of
    the classes, and the loss, which tells how logits become probabilities. `NAME.images.zip` has
    the code that decodes and resizes images, so that what serves the program sees the pixels that
    `predict` sees.

    Args:
      model: any model.
      path: ends in the form's suffix.
      form: the name of a known form.

    Raises:
      UserError: the suffix is wrong, the form is unknown, or it cannot hold the model.
    """
    path, export = Path(path), export_named(form)
    if path.suffix != export.suffix:
        raise UserError(
            f"{path}: an exported model is written as {export.suffix}; choose such a name"
        )
    stated = {"loss": model.loss, "input": taken_images(model)}
    description = make_description(form, model.config, model.class_names, stated)
    program = export.serialize(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_all(
        {
            description_path(path): bytes_writer(json_bytes(description)),
            path.with_name(f"{path.stem}.images.zip"): bytes_writer(image_code()),
            path: bytes_writer(program),
        }
    )
