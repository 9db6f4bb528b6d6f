"""Hugging Face's layout of a ViT, with its `config.json` and `preprocessor_config.json`.

`ViTForImageClassification` has a class token and one linear head; `ViTModel`, without a head, may
have a pooler, which is the representation layer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.weights.layouts.layout import Configs, Described, ImageSize, Json, Layout, Values
from vit_jax.weights.layouts.pytorch import Names, from_pytorch, module, num_heads, to_pytorch
from vit_jax.weights.stored import AnyArray

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_STEM = "embeddings.patch_embeddings.projection.weight"
_LAYER = "encoder.layer.{}"
_ENCODER: Names = {
    "embeddings.cls_token": ("cls", "plain"),
    "embeddings.position_embeddings": ("pos_embedding", "plain"),
    **module("embeddings.patch_embeddings.projection", "embedding", "conv"),
    **module(f"{_LAYER}.layernorm_before", "blocks/norm1", "norm"),
    **{
        name: place
        for part in ("query", "key", "value")
        for name, place in module(
            f"{_LAYER}.attention.attention.{part}",
            f"blocks/attention/{part}",
            "split",
            "split_bias",
        ).items()
    },
    **module(f"{_LAYER}.attention.output.dense", "blocks/attention/out", "merge"),
    **module(f"{_LAYER}.layernorm_after", "blocks/norm2", "norm"),
    **module(f"{_LAYER}.intermediate.dense", "blocks/mlp/dense1", "linear"),
    **module(f"{_LAYER}.output.dense", "blocks/mlp/dense2", "linear"),
    **module("layernorm", "norm", "norm"),
}
_MODEL: Names = {**_ENCODER, **module("pooler.dense", "pre_logits", "linear")}
# With a classifier, the library ignores the pooler.
_CLASSIFIER: Names = {
    **{f"vit.{name}": place for name, place in _ENCODER.items()},
    **module("classifier", "head", "linear"),
}

_GELUS = {"gelu": "exact", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh", "gelu_fast": "tanh"}
_RESAMPLE = {"bilinear": 2, "bicubic": 3}


def from_huggingface(flat: Mapping[str, AnyArray], heads: int) -> Params:
    """Maps Hugging Face's names to nested parameters that are read later.

    Raises:
      UserError: names that are not those of a plain ViT; all are listed with their shapes.
    """
    has_prefix = any(name.startswith("vit.") for name in flat)
    return from_pytorch(flat, _CLASSIFIER if has_prefix else _MODEL, heads)


def to_huggingface(params: Params, model: ModelConfig) -> dict[str, np.ndarray]:
    """Maps nested parameters to Hugging Face's names; inverts `from_huggingface`.

    Raises:
      UserError: Hugging Face's ViT has no form for the model.
    """
    _require_expressible(model)
    return to_pytorch(params, _CLASSIFIER if model.num_classes else _MODEL)


def read_config(config: Json, preprocessor: Json | None) -> Described:
    """What the two files state of the model.

    Raises:
      UserError: an activation function that this package lacks.
    """
    activation = config.get("hidden_act", "gelu")
    if activation not in _GELUS:
        raise UserError(
            f"its config.json has hidden_act={activation!r}; known: {', '.join(_GELUS)}"
        )
    is_classifier = "ViTForImageClassification" in config.get("architectures", ())
    if config.get("pooler_act", "tanh") != "tanh" and not is_classifier:  # which has no pooler
        raise UserError(f"its config.json has pooler_act={config['pooler_act']!r}; known: tanh")
    size = config.get("image_size", 224)
    values: Values = {
        "image_size": size if isinstance(size, int) else tuple(size),
        "num_heads": config.get("num_attention_heads", 12),
        "gelu": _GELUS[activation],
        "norm_epsilon": config.get("layer_norm_eps", 1e-12),
    }
    if preprocessor is not None:
        values["preprocessing"] = _read_preprocessing(preprocessor)
    names = config.get("id2label", {})
    if all(name == f"LABEL_{key}" for key, name in names.items()):  # placeholders, or none
        return Described(values)
    return Described(values, tuple(names[key] for key in sorted(names, key=int)))


def write_config(model: ModelConfig, class_names: tuple[str, ...] | None) -> Json:
    """The `config.json` with which `from_pretrained` builds the model."""
    size, (height, width) = model.size, model.input_size
    names = class_names or tuple(f"LABEL_{i}" for i in range(model.num_classes or 0))
    config = {
        "architectures": ["ViTForImageClassification" if model.num_classes else "ViTModel"],
        "model_type": "vit",
        "image_size": height if height == width else [height, width],
        "patch_size": model.patch_size,
        "num_channels": 3,
        "hidden_size": size.width,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.num_heads,
        "intermediate_size": size.mlp_dim,
        "hidden_act": "gelu" if model.gelu == "exact" else "gelu_pytorch_tanh",
        "layer_norm_eps": model.norm_epsilon,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "qkv_bias": True,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    if model.representation_size:
        config |= {"pooler_output_size": model.representation_size, "pooler_act": "tanh"}
    return config


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


def _defaults(file_name: str, shorter_side: int) -> Values:
    """The library's own defaults."""
    return {
        "gelu": "exact",
        "norm_epsilon": 1e-12,
        "preprocessing": PreprocessingConfig(antialias=True),
    }


def _matches(names: Collection[str], configs: Configs) -> bool:
    is_vit = configs.get(_CONFIG, {}).get("model_type", "vit") == "vit"
    return is_vit and any(name.removeprefix("vit.").startswith("embeddings.") for name in names)


def _read(
    arrays: Mapping[str, AnyArray], described: Described, image_size: ImageSize | None
) -> tuple[Params, Values]:
    shapes = (arrays[name].shape for name in (_STEM, f"vit.{_STEM}") if name in arrays)
    width = next((shape[0] for shape in shapes if shape), 0)
    # The library's ViT has no other pooling; without its config the arrays may be an encoder's.
    shown = {"pooling": "token"} if described.values else {}
    return from_huggingface(arrays, num_heads(described, width)), shown


def _read_configs(configs: Configs) -> Described:
    config = configs.get(_CONFIG, {})
    if config.get("model_type") != "vit":  # a config that is not Hugging Face's
        return Described()
    return read_config(config, configs.get(_PREPROCESSOR))


def _write_configs(model: ModelConfig, class_names: tuple[str, ...] | None) -> dict[str, Json]:
    return {_CONFIG: write_config(model, class_names), _PREPROCESSOR: write_preprocessor(model)}


def _read_preprocessing(config: Json) -> PreprocessingConfig:
    size = config.get("size", 224)
    sides = size if isinstance(size, Mapping) else {"height": size, "width": size}
    shortest = sides.get("shortest_edge")
    if config.get("do_center_crop") and shortest is None:
        # DeiT's files there squash to a square before the crop; DeiT itself keeps the aspect.
        shortest = min(sides["height"], sides["width"])
    return PreprocessingConfig(
        mean=tuple(config.get("image_mean", (0.5, 0.5, 0.5))),
        std=tuple(config.get("image_std", (0.5, 0.5, 0.5))),
        resize="squash" if shortest is None else "short_side",
        short_side=shortest,
        interpolation="bicubic" if config.get("resample") == _RESAMPLE["bicubic"] else "bilinear",
        antialias=True,
    )


def _require_expressible(model: ModelConfig) -> None:
    problems = {
        f"form of {model.name}": model.family != "vit",
        f"pooling={model.pooling}": model.pooling != "token",
        f"positions={model.positions}": model.positions != "learned",
        "registers": model.registers > 0,
        "a representation layer before a head": bool(
            model.representation_size and model.num_classes
        ),
    }
    if found := [problem for problem, applies in problems.items() if applies]:
        raise UserError(
            f"Hugging Face's ViT has no {', no '.join(found)}; write this model with "
            "--layout=google"
        )


HUGGINGFACE = Layout(
    name="huggingface",
    suffix=".safetensors",
    matches=_matches,
    read=_read,
    write=to_huggingface,
    hidden=("num_heads", "gelu", "norm_epsilon", "preprocessing"),
    config_names=(_CONFIG, _PREPROCESSOR),
    read_config=_read_configs,
    write_configs=_write_configs,
    defaults=_defaults,
)
