"""Opening and writing weight files of every layout.

Beside `NAME.npz` or `NAME.safetensors` lies `NAME.json`: the model with its preprocessing, and its
classes. If it is missing, the library's own config is read; if that is missing too, the layout's
defaults are assumed, and `Weights.assumed` lists them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from etils import epath

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params
from vit_jax.schema import to_dict
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path
from vit_jax.weights.architecture import infer_model, unshown_fields
from vit_jax.weights.archives import array_writer, bytes_writer, open_arrays
from vit_jax.weights.classes import imagenet21k_names, imagenet_names
from vit_jax.weights.description import (
    P,
    description_path,
    json_bytes,
    make_description,
    read_description,
    read_json,
)
from vit_jax.weights.layouts.layout import Configs, Described, ImageSize, Json, Values
from vit_jax.weights.layouts.registry import hub_configs, layout_named, layout_of
from vit_jax.weights.shards import INDEX_SUFFIX, index_of_part, open_shards
from vit_jax.weights.stored import AnyArray

# Hubs want weights under this name. Only then does a layout's own config lie beside them.
HUB_FILE = "model.safetensors"
# A directory's weights: the first of these that it has.
FOLDER_FILES = ("weights.npz", HUB_FILE, f"{HUB_FILE}{INDEX_SUFFIX}")
CARD_NAME = "README.md"
_FIELDS = {field.name for field in dataclasses.fields(ModelConfig)}
# Heads with this many classes are ImageNet's where nothing beside the weights names classes.
_KNOWN_CLASSES = {
    1_000: ("the classes of ImageNet-1k", imagenet_names),
    21_843: ("the classes of ImageNet-21k", imagenet21k_names),
}


@dataclass(frozen=True)
class Weights:
    """An opened weight file.

    Attributes:
      path: of the file.
      layout: its name.
      params: nested by our names; each leaf is an array or a `StoredArray` that is read later.
      model: the model that they are the parameters of; without a head, `num_classes` is 0.
      class_names: of the head's classes, if known.
      assumed: what neither the arrays nor a file beside them state, in words, by field of
        `ModelConfig` or `class_names`.
      extra: more that our description states, such as `step` and `loss` of a run.
    """

    path: Path
    layout: str
    params: Params
    model: ModelConfig
    class_names: tuple[str, ...] | None
    assumed: dict[str, str]
    extra: Json


def open_weights(path: str | os.PathLike[str], image_size: ImageSize | None = None) -> Weights:
    """Opens a weight file: reads names and shapes of its arrays, and what the model is.

    Args:
      path: a file in a known layout, or a directory with a `weights.npz` (a finished run) or a
        `model.safetensors`, whole or in parts (as from a hub).
      image_size: pixels, a side or (height, width), of the images that the weights were trained
        on; needed if the positions are not a square grid and no description states it.

    Raises:
      UserError: the file or its description is missing, damaged or in no known layout.
    """
    path, arrays = _open_file(Path(path))
    try:
        return _open(path, arrays, image_size)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def write_weights(
    path: str | os.PathLike[str],
    params: Params,
    model: ModelConfig,
    *,
    layout: str = "google",
    class_names: tuple[str, ...] | None = None,
    extra: Json | None = None,
    card: str | None = None,
) -> None:
    """Writes a weight file, and the model's description into `NAME.json` beside it.

    Equal arguments give equal bytes. Each file is replaced in one step, the description first and
    only after all are on the disk: after a crash, a new weight file always has its description.
    Beside a file named `model.safetensors`, as hubs want it, the layout's own configs are written.

    Args:
      path: ends in the layout's suffix, `.npz` for Google's, `.safetensors` for the others.
      params: nested, by our names.
      model: with all inherited fields filled in.
      layout: the name of a known layout.
      class_names: left out unless there is one name for each class of the head.
      extra: more to state in the description, such as `{"step": 100}`.
      card: the text of the README.md beside a `model.safetensors`, see `card.model_card`.

    Raises:
      UserError: the suffix is wrong, the layout has no form for the model, or a config of another
        program, such as a run's, lies where the layout's config belongs.
    """
    target = as_path(path)
    form = layout_named(layout)
    if target.suffix != form.suffix:
        raise UserError(
            f"{path}: the layout {layout} is written as {form.suffix}; choose such a name"
        )
    class_names = class_names if class_names and len(class_names) == model.num_classes else None
    arrays = form.write(params, model)
    arrays = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    texts: dict[epath.Path, Json] = {
        description_path(target): make_description(layout, model, class_names, extra or {})
    }
    if target.name == HUB_FILE:
        loss = (extra or {}).get("loss")
        for name, config in form.write_configs(model, class_names, loss).items():
            _refuse_foreign_config(target.with_name(name), config)
            texts[target.with_name(name)] = config
    writers = {file: bytes_writer(json_bytes(text)) for file, text in texts.items()}
    if card is not None and target.name == HUB_FILE:
        writers[target.with_name(CARD_NAME)] = bytes_writer(card.encode())
    writers[target] = array_writer(target, arrays)
    objects.write_all(writers)


def descriptions_of(path: P) -> list[P]:
    """The files beside a weight file that may describe it, to programs or to people."""
    names = (*hub_configs(), CARD_NAME) if path.name == HUB_FILE else ()
    return [description_path(path), *(path.with_name(name) for name in names)]


def _require_same_shape(model: ModelConfig, inferred: Values) -> None:
    """Refuses a description of another model than the arrays are."""
    keys = (*(model.shape.keys() & _FIELDS), "name")
    changes: Values = {key: inferred.get(key) for key in keys}
    shown = dataclasses.replace(model, **changes)
    numbers = {**model.shape, "patch_size": model.patch_size}
    for key, value in {**shown.shape, "patch_size": shown.patch_size}.items():
        if numbers.get(key) != value:
            raise UserError(
                f"its description has {key}={numbers.get(key)}, its arrays {value}; correct or "
                "remove the description"
            )


def _require_understood(names: tuple[str, ...], configs: Configs) -> None:
    """Refuses a library's config from which nothing could be read."""
    for name in names:
        if name in configs:
            stated = configs[name].get("model_type")
            words = f"has model_type={stated!r}" if stated else "has no model_type or architecture"
            raise UserError(
                f"{name} beside it {words}, and this package reads model_type='vit' of Hugging "
                "Face and timm's configs, which name an architecture; give the file of a plain "
                "ViT, or describe the model in NAME.json beside the file"
            )


def in_words(model: ModelConfig, key: str) -> str | None:
    """An assumed field of a model, for a message; None if the model's family lacks the field."""
    if key == "preprocessing":
        parts = to_dict(model.preprocessing).items()
        return ", ".join(f"{name}={value}" for name, value in parts if value is not None)
    value = model.size.num_heads if key == "num_heads" else getattr(model, key, None)
    return None if value in (None, "inherit") else f"{key}={value}"


def _open_file(path: Path) -> tuple[Path, Mapping[str, AnyArray]]:
    """The arrays that a path means, and the file that they are in.

    For a checkpoint in parts it is the file that would hold them all: descriptions lie beside it.
    """
    if os.path.isdir(path):
        path = _in_directory(path)
    path = index_of_part(path) or path
    whole = weights_named(path)
    return whole, open_arrays(path) if whole == path else open_shards(path)


def weights_named(path: P) -> P:
    """The file beside which the descriptions of weights lie: not the index of a sharded one."""
    is_index = path.name.endswith(f".safetensors{INDEX_SUFFIX}")
    return path.with_name(path.name.removesuffix(INDEX_SUFFIX)) if is_index else path


def _in_directory(path: Path) -> Path:
    for name in FOLDER_FILES:
        if os.path.lexists(path / name):
            return path / name
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path") from error
    if pickles := [name for name in names if name.startswith("pytorch_model") and ".bin" in name]:
        raise UserError(
            f"{path}: its weights are in {pickles[0]}, a pickle, which can run code, so it is "
            "never loaded; where you trust it, write it as .safetensors with the library itself: "
            f"AutoModelForImageClassification.from_pretrained({str(path)!r}).save_pretrained(NEW)"
        )
    if files := [name for name in names if name.endswith((".npz", ".safetensors"))]:
        raise UserError(f"{path}: name one of its files, such as {path / files[0]}")
    raise UserError(
        f"{path}: a directory without weights.npz or {HUB_FILE}; name a weight file, or, if it is "
        "a run that has not ended, finish it with the same train command"
    )


def _open(path: Path, arrays: Mapping[str, AnyArray], image_size: ImageSize | None) -> Weights:
    own = read_description(path)
    configs = _read_hub_configs(path) if own is None else {}
    layout = layout_of(arrays, configs, own.layout if own else None)
    described = layout.read_config(configs) if own is None else own
    if own is None and not described.values:
        _require_understood(layout.config_names, configs)

    size = described.values.get("image_size", image_size)
    params, shown = layout.read(arrays, described, size)
    inferred = {**infer_model(params, size), **shown}
    _require_agreement(described, inferred)

    hidden = [
        key
        for key in (*layout.hidden, *unshown_fields(params))
        if key not in described.values and key not in shown
    ]
    if "name" in described.values:  # It has a number of heads.
        hidden = [key for key in hidden if key != "num_heads"]
    side = inferred["image_size"]
    layout_defaults = layout.defaults(path.name, side if isinstance(side, int) else min(side))
    defaults = {key: layout_defaults[key] for key in hidden if key in layout_defaults}
    model = ModelConfig(**{**defaults, **inferred, **described.values}).completed()
    _require_same_shape(model, inferred)

    assumed = {key: words for key in hidden if (words := in_words(model, key))}
    class_names = described.class_names
    if class_names is None and own is None and model.num_classes in _KNOWN_CLASSES:
        assumed["class_names"], names = _KNOWN_CLASSES[model.num_classes]
        class_names = names()
    if not model.num_classes:
        class_names = None
    if class_names is not None and len(class_names) != model.num_classes:
        raise UserError(
            f"its description has {len(class_names)} class names, but its head has "
            f"{model.num_classes} classes; correct the description"
        )
    return Weights(path, layout.name, params, model, class_names, assumed, described.extra)


def _read_hub_configs(path: Path) -> Configs:
    if path.suffix != ".safetensors":  # The config.json beside a weights.npz is a run's.
        return {}
    found = {name: read_json(path.with_name(name)) for name in hub_configs()}
    return {name: config for name, config in found.items() if config is not None}


def _require_agreement(described: Described, inferred: Values) -> None:
    for key in ("num_classes", "representation_size"):
        stated = described.values.get(key)
        if key in described.values and stated != inferred.get(key):
            raise UserError(
                f"its description has {key}={stated}, its arrays {inferred.get(key)}; correct or "
                "remove the description"
            )


def _refuse_foreign_config(path: Path, config: Json) -> None:
    """A run's directory has a `config.json` too; it shares no key with a layout's."""
    present = read_json(path)
    if present is not None and not present.keys() & config.keys():
        raise UserError(
            f"{path}: writing this would replace the run's or another program's config; choose "
            "another directory"
        )
