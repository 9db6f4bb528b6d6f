"""The `preprocessor_config.json` of Hugging Face: how images become a model's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.schema import convert
from vit_jax.weights.layouts.layout import Json, known_keys

FILE = "preprocessor_config.json"
_RESAMPLE = {"bilinear": 2, "bicubic": 3}
_NAMES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# These have the defaults below; other processors may have others.
_VIT_PROCESSORS = ("ViTImageProcessor", "ViTImageProcessorFast", "ViTFeatureExtractor")


@dataclass(frozen=True)
class _Stated:
    """The keys that change pixels, with the defaults of `ViTImageProcessor`."""

    do_resize: bool = True
    do_center_crop: bool = False
    do_rescale: bool = True
    do_normalize: bool = True
    do_pad: bool = False
    do_flip_channel_order: bool = False
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    rescale_factor: float = 1 / 255
    resample: int = 2
    image_processor_type: str = "ViTImageProcessor"
    feature_extractor_type: str = ""


def read_preprocessor(config: Json) -> PreprocessingConfig:
    """What the file states.

    Its values are `(x * rescale_factor - image_mean) / image_std` for pixels x from 0 to 255, and
    ours `(x / 255 - mean) / std`; each of its steps may be left out.

    Raises:
      UserError: a key has a wrong type, or asks for something that this package lacks.
    """
    given = convert(_Stated, known_keys(_Stated, config, "size"), FILE)
    stated = _Stated(**given)
    processor = stated.feature_extractor_type or stated.image_processor_type
    needed = {"resample"} | ({"image_mean", "image_std"} if stated.do_normalize else set())
    missing = sorted(needed - given.keys())
    problems = {
        f"do_resize={stated.do_resize}": not stated.do_resize,
        f"do_pad={stated.do_pad}": stated.do_pad,
        f"do_flip_channel_order={stated.do_flip_channel_order}": stated.do_flip_channel_order,
        f"resample={stated.resample} ({_NAMES.get(stated.resample, 'unknown')})": (
            stated.resample not in _RESAMPLE.values()
        ),
        f"rescale_factor={stated.rescale_factor}": stated.do_rescale and stated.rescale_factor <= 0,
        f"no {' and no '.join(missing)}, whose values in {processor} this package does not know": (
            bool(missing) and processor not in _VIT_PROCESSORS
        ),
    }
    if found := [problem for problem, applies in problems.items() if applies]:
        raise UserError(
            f"its {FILE} has {', '.join(found)}, which is not supported; state the preprocessing "
            "that the model was trained with in the description NAME.json beside the file"
        )
    mean = stated.image_mean if stated.do_normalize else (0.0, 0.0, 0.0)
    std = stated.image_std if stated.do_normalize else (1.0, 1.0, 1.0)
    # Exactly 1 for the usual factor.
    scale = 255 * stated.rescale_factor if stated.do_rescale else 255.0
    shortest = _shortest_edge(config.get("size"), crops=stated.do_center_crop)
    return PreprocessingConfig(
        mean=_over(scale, mean),
        std=_over(scale, std),
        resize="squash" if shortest is None else "short_side",
        short_side=shortest,
        interpolation="bicubic" if stated.resample == _RESAMPLE["bicubic"] else "bilinear",
        antialias=True,
    )


def write_preprocessor(model: ModelConfig) -> Json:
    """The `preprocessor_config.json`, which always resizes with antialiasing.

    Raises:
      UserError: the crop is not square.
    """
    preprocessing = model.preprocessing
    assert preprocessing is not None
    height, width = model.input_size
    if preprocessing.resize == "short_side" and height != width:
        raise UserError(
            f"Hugging Face's ViT has no crop of {height}x{width} pixels that is inside every "
            "image; write this model with --layout=timm, or under another name than "
            "model.safetensors"
        )
    config: dict[str, Any] = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
        "resample": _RESAMPLE[preprocessing.interpolation],
        "rescale_factor": 1 / 255,
    }
    if preprocessing.resize == "squash":
        size = {"height": height, "width": width}
        return config | {"image_processor_type": "ViTImageProcessor", "size": size}
    return config | {
        # The one with a central crop.
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "size": {"shortest_edge": preprocessing.short_side or min(height, width)},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
    }


def _over(scale: float, values: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red / scale, green / scale, blue / scale


def _shortest_edge(size: Any, *, crops: bool) -> int | None:
    """The shorter side that images are resized to; None if they are squashed to the input."""
    if size is None:
        size = 224
    sides = size if isinstance(size, Mapping) else {"height": size, "width": size}
    known = {"shortest_edge"}, {"height", "width"}
    if set(sides) not in known or any(type(side) is not int or side < 1 for side in sides.values()):
        raise UserError(
            f'its {FILE} has size={size!r}; write {{"height": 224, "width": 224}} or '
            '{"shortest_edge": 256}'
        )
    if "shortest_edge" in sides:
        return int(sides["shortest_edge"])
    # DeiT's files there squash to a square before the crop; DeiT itself keeps the aspect.
    return min(sides.values()) if crops else None
