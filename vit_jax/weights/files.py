"""Weight files on disk, of all layouts: what is in one, and writing one.

Beside `NAME.npz` or `NAME.safetensors` lies `NAME.json`: the model with its preprocessing, and its
classes. Where it is missing, the format's own config is read; where that is missing too, the
family's customs are assumed, and that is said.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vit_jax.atomic import write_together
from vit_jax.errors import UserError
from vit_jax.losses import Loss
from vit_jax.models.config import ModelConfig
from vit_jax.models.sizes import heads_of_width
from vit_jax.schema import build, to_dict
from vit_jax.weights.architecture import infer_model
from vit_jax.weights.archives import open_arrays
from vit_jax.weights.classes import imagenet_names
from vit_jax.weights.layouts import huggingface, timm
from vit_jax.weights.layouts.google import from_google, to_google

Layout = Literal["google", "timm", "huggingface"]

# What each layout's own configs are called; they stand beside a file of exactly this name.
_OWN_CONFIG, _OWN_PREPROCESSOR = "config.json", "preprocessor_config.json"
_HUB_FILE = "model.safetensors"
# What else our own descriptions hold.
_OWN_KEYS = ("layout", "model", "class_names")


@dataclass(frozen=True)
class Weights:
    """An opened weight file.

    Attributes:
      path: of the file.
      params: nested by our names, each a `StoredArray` that is still to be read, or an array.
      model: what they are the parameters of; without a head, `num_classes` is 0.
      class_names: of the head's classes, if known.
      assumed: what was neither in the file nor beside it, in words, by the model's key.
      extra: more that our description beside it says, such as `step` and `loss` of a run.
    """

    path: Path
    layout: Layout
    params: dict[str, Any]
    model: ModelConfig
    class_names: tuple[str, ...] | None
    assumed: dict[str, str]
    extra: dict[str, Any]


def open_weights(
    path: str | os.PathLike[str], image_size: int | tuple[int, int] | None = None
) -> Weights:
    """Opens a weight file: reads its names and shapes, and what the model is.

    Args:
      path: a `.npz` file of Google or big_vision, a `.safetensors` file of timm or Hugging Face,
          a directory that holds a hub's `model.safetensors`, or that of a run that has ended.
      image_size: pixels, side or (height, width), of the images that it was trained on; needed
          where positions are not a square and nothing beside the file says it.

    Raises:
      UserError: the file or what describes it is absent, damaged, or of no known layout; or the
          run has not ended.
    """
    path = _file(Path(path))
    arrays = open_arrays(path)
    try:
        return _open(path, arrays, image_size)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def write_weights(
    path: str | os.PathLike[str],
    params: Mapping[str, Any],
    model: ModelConfig,
    *,
    layout: Layout = "google",
    class_names: tuple[str, ...] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes a weight file, and what the model is into `NAME.json` beside it.

    Equal arguments give equal bytes. Each file is replaced in one step, the description first,
    once all are safely on the disk: after a crash a new weight file always has its description.
    A file that is called `model.safetensors`, as hubs want it, gets the layout's own configs too.

    Args:
      path: ends in `.npz` for Google's layout, in `.safetensors` for the others.
      params: nested, by our names.
      model: with nothing left open.
      class_names: left out unless there is one for each class of the head.
      extra: more for the description, such as `{"step": 100}`.

    Raises:
      UserError: another ending, or the layout cannot express the model.
    """
    path = Path(path)
    class_names = class_names if class_names and len(class_names) == model.num_classes else None
    ending = ".npz" if layout == "google" else ".safetensors"
    if path.suffix != ending:
        raise UserError(f"{path}: the layout {layout} is written as {ending}; choose such a name")
    if layout == "google":
        arrays = to_google(params)
    elif layout == "timm":
        arrays = timm.to_timm(params, model)
    else:
        arrays = huggingface.to_huggingface(params, model)
    arrays = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    description = {
        "layout": layout,
        "model": to_dict(model),
        "class_names": None if class_names is None else list(class_names),
        **(extra or {}),
    }
    texts = {path.with_name(_description_name(path)): description}
    if path.name == _HUB_FILE:
        own = _own_configs(path, layout, model, class_names)
        _refuse_foreign_config(path, own)
        texts |= own
    path.parent.mkdir(parents=True, exist_ok=True)
    write_together(
        {
            **{file: _json_writer(text) for file, text in texts.items()},
            path: _npz_writer(arrays) if layout == "google" else _safetensors_writer(path, arrays),
        }
    )


def descriptions_of(path: Path) -> list[Path]:
    """Where what describes a weight file is written, beside it."""
    names = [_description_name(path)]
    if path.name == _HUB_FILE:
        names += [_OWN_CONFIG, _OWN_PREPROCESSOR]
    return [path.with_name(name) for name in names]


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in ("weights.npz", _HUB_FILE):
        if (path / name).exists():
            return path / name
    raise UserError(
        f"{path}: a directory without weights.npz or {_HUB_FILE}; name a weight file, or, if it is "
        "a run that has not ended, finish it with the same train command"
    )


def _open(path: Path, arrays: dict[str, Any], image_size: Any) -> Weights:
    names = set(arrays)
    is_timm, is_huggingface = timm.is_timm(names), huggingface.is_huggingface(names)
    layout: Layout = "timm" if is_timm else "huggingface" if is_huggingface else "google"
    description = _read_json(path.with_name(_description_name(path)))
    said = _said(path, layout, description)
    class_names = said.pop("class_names", None)
    pooling = None
    if layout == "google":
        params = from_google(arrays)
    else:
        heads = _heads(said, arrays)
        if layout == "timm":
            params, pooling = timm.from_timm(arrays, heads, said.get("image_size", image_size))
        else:
            params = huggingface.from_huggingface(arrays, heads)
    shown = infer_model(params, said.get("image_size", image_size))
    for key in ("num_classes", "representation_size"):
        if key in said and said[key] != shown.get(key):
            raise UserError(
                f"what lies beside it says {key}={said[key]}, its arrays {shown.get(key)}; mend or "
                "remove the description"
            )
    if pooling is not None:
        shown["pooling"] = pooling
    side = shown["image_size"]
    side = side if isinstance(side, int) else min(side)
    customs = {
        "google": dict.fromkeys(("gelu", "norm_epsilon", "preprocessing")),
        "timm": timm.assumed(path.name, side),
        "huggingface": huggingface.assumed(),
    }[layout]
    missing = {key: value for key, value in customs.items() if key not in said}
    model = build(ModelConfig, {**_plain(missing), **shown, **_plain(said)}, "model").following()
    assumed = _in_words(missing, model)
    if layout != "google" and "name" not in said and "num_heads" not in said:
        assumed["num_heads"] = f"num_heads={model.size.num_heads}"
    if class_names is None and description is None and model.num_classes == 1000:
        class_names = imagenet_names()
        assumed["class_names"] = "the classes of ImageNet-1k"
    if not model.num_classes:
        class_names = None
    if class_names is not None and len(class_names) != model.num_classes:
        raise UserError(
            f"{len(class_names)} class names lie beside it, but its head has {model.num_classes} "
            "classes; mend the description"
        )
    return Weights(path, layout, params, model, class_names, assumed, _extra(description or {}))


def _said(path: Path, layout: Layout, description: dict[str, Any] | None) -> dict[str, Any]:
    """What is written beside the file: values of a `ModelConfig`, and `class_names`."""
    if description is not None:
        said, names = description.get("model", {}), description.get("class_names")
        if not isinstance(said, dict) or not isinstance(names, list | None):
            raise UserError(
                f"in its description {_description_name(path)} the model must be an object and the "
                "class names a list; mend or remove it"
            )
        return said | ({} if names is None else {"class_names": tuple(names)})
    own = _read_json(path.with_name(_OWN_CONFIG)) if path.suffix == ".safetensors" else None
    if own is None or layout == "google":
        return {}
    if layout == "timm":
        return timm.read_config(own) if "architecture" in own else {}
    preprocessor = _read_json(path.with_name(_OWN_PREPROCESSOR))
    return huggingface.read_config(own, preprocessor) if own.get("model_type") == "vit" else {}


def _extra(description: Mapping[str, Any]) -> dict[str, Any]:
    extra = {k: v for k, v in description.items() if k not in _OWN_KEYS}
    if extra.get("loss") not in (None, *get_args(Loss)):
        raise UserError(
            f"its description says loss={extra['loss']!r}, which is none of "
            f"{', '.join(get_args(Loss))}; mend it"
        )
    return extra


def _own_configs(
    path: Path, layout: Layout, model: ModelConfig, class_names: tuple[str, ...] | None
) -> dict[Path, dict[str, Any]]:
    config = path.with_name(_OWN_CONFIG)
    if layout == "timm":
        return {config: timm.write_config(model, class_names)}
    return {
        config: huggingface.write_config(model, class_names),
        path.with_name(_OWN_PREPROCESSOR): huggingface.write_preprocessor(model),
    }


def _refuse_foreign_config(path: Path, configs: Mapping[Path, dict[str, Any]]) -> None:
    """A run's directory has a `config.json` too, with no key of a layout's."""
    file = path.with_name(_OWN_CONFIG)
    present = _read_json(file)
    if present is not None and not present.keys() & configs[file].keys():
        raise UserError(
            f"{path}: its config.json would replace the run's or another program's; choose another "
            "directory"
        )


def _heads(said: Mapping[str, Any], arrays: Mapping[str, Any]) -> int:
    """Of attention; neither of these layouts shows it."""
    if "name" in said:
        model = build(ModelConfig, said, "model")
        if model.family != "vit":
            raise UserError(f"its arrays are a plain ViT's, but its description says {model.name}")
        return model.size.num_heads
    ends = ("patch_embed.proj.weight", "patch_embeddings.projection.weight")
    widths = (a.shape[0] for name, a in arrays.items() if name.endswith(ends) and a.shape)
    return said.get("num_heads") or heads_of_width(next(widths, 0))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: to_dict(v) if k == "preprocessing" and v is not None else v for k, v in values.items()
    }


def _in_words(missing: Mapping[str, Any], model: ModelConfig) -> dict[str, str]:
    # What is None here, the model's family has not.
    values = {key: getattr(model, key) for key in missing if getattr(model, key) is not None}
    words = {key: f"{key}={value}" for key, value in values.items()}
    if "preprocessing" in missing:
        parts = to_dict(model.preprocessing).items()
        words["preprocessing"] = ", ".join(f"{k}={v}" for k, v in parts if v is not None)
    return words


def _description_name(path: Path) -> str:
    return path.name.removesuffix(path.suffix) + ".json"


def _json_writer(value: Mapping[str, Any]):
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    return lambda file: file.write(text.encode())


def _npz_writer(arrays: Mapping[str, np.ndarray]):
    if opaque := [name for name, array in arrays.items() if array.dtype.kind not in "fiu"]:
        raise TypeError(f"npz cannot hold the dtype of {', '.join(opaque)}")
    # savez dates every entry 1980-01-01: the bytes depend on names and values alone.
    return lambda file: np.savez(file, allow_pickle=False, **arrays)


def _safetensors_writer(path: Path, arrays: Mapping[str, np.ndarray]):
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise UserError(
            f"{path}: writing this needs the package safetensors; pip install "
            "'vit_jax[safetensors]'"
        ) from error
    # Without this word transformers refuses the file.
    return lambda file: file.write(save(dict(arrays), metadata={"format": "pt"}))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"its description {path.name} cannot be read ({text}); mend or remove it"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"its description {path.name} is no JSON object; mend or remove it")
    return value
