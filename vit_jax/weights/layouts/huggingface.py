"""Hugging Face's layout of a ViT, with its `config.json` and `preprocessor_config.json`.

`ViTForImageClassification` has a class token and one linear head; `ViTModel`, without a head, may
have a pooler, which is the representation layer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.schema import convert
from vit_jax.weights.layouts.huggingface_preprocessor import FILE as PREPROCESSOR
from vit_jax.weights.layouts.huggingface_preprocessor import read_preprocessor, write_preprocessor
from vit_jax.weights.layouts.layout import (
    Configs,
    Described,
    ImageSize,
    Json,
    Layout,
    Values,
    known_keys,
)
from vit_jax.weights.layouts.pytorch import Names, from_pytorch, module, num_heads, to_pytorch
from vit_jax.weights.stored import AnyArray

_CONFIG = "config.json"
# Newer versions may keep the preprocessor in this file.
_PROCESSOR = "processor_config.json"
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


@dataclass(frozen=True)
class _Stated:
    """The keys of `config.json` that matter besides the arrays, with the library's defaults."""

    architectures: tuple[str, ...] = ()
    hidden_act: str = "gelu"
    pooler_act: str = "tanh"
    image_size: int | tuple[int, int] = 224
    num_attention_heads: int = 12
    layer_norm_eps: float = 1e-12
    num_channels: int = 3


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
      UserError: a key has a wrong type, or asks for something that this package lacks.
    """
    stated = _Stated(**convert(_Stated, known_keys(_Stated, config, "id2label"), _CONFIG))
    if stated.hidden_act not in _GELUS:
        raise UserError(
            f"its config.json has hidden_act={stated.hidden_act!r}; known: {', '.join(_GELUS)}"
        )
    if stated.num_channels != 3:
        raise UserError(f"its config.json has num_channels={stated.num_channels}; known: 3")
    is_classifier = "ViTForImageClassification" in stated.architectures
    if stated.pooler_act != "tanh" and not is_classifier:  # which has no pooler
        raise UserError(f"its config.json has pooler_act={stated.pooler_act!r}; known: tanh")
    values: Values = {
        "image_size": stated.image_size,
        "num_heads": stated.num_attention_heads,
        "gelu": _GELUS[stated.hidden_act],
        "norm_epsilon": stated.layer_norm_eps,
    }
    if preprocessor is not None:
        values["preprocessing"] = read_preprocessor(preprocessor)
    return Described(values, _class_names(config.get("id2label")))


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
    config, preprocessor = configs.get(_CONFIG), configs.get(PREPROCESSOR)
    if preprocessor is None and isinstance(own := configs.get(_PROCESSOR, {}), Mapping):
        preprocessor = own.get("image_processor")
    if not isinstance(preprocessor, Mapping | None):
        raise UserError(f"its {_PROCESSOR} has an image_processor that is no object; correct it")
    if config is None and preprocessor is not None:
        return Described({"preprocessing": read_preprocessor(preprocessor)})
    if config is None or config.get("model_type") != "vit":
        return Described()
    return read_config(config, preprocessor)


def _class_names(id2label: Any) -> tuple[str, ...] | None:
    """The names in the order of the head; None for placeholders or none at all."""
    if not id2label:
        return None
    wanted = [str(i) for i in range(len(id2label))]
    if (
        not isinstance(id2label, Mapping)
        or sorted(id2label, key=str) != sorted(wanted)
        or not all(isinstance(name, str) for name in id2label.values())
    ):
        raise UserError(
            "its config.json has an id2label that does not give each of 0, 1, 2 and so on a name; "
            "correct it"
        )
    if all(name == f"LABEL_{key}" for key, name in id2label.items()):
        return None
    return tuple(id2label[key] for key in wanted)


def _write_configs(
    model: ModelConfig, class_names: tuple[str, ...] | None, loss: str | None
) -> dict[str, Json]:
    config = dict(write_config(model, class_names))
    if loss == "sigmoid":  # Its pipeline takes the sigmoid then, and otherwise the softmax.
        config["problem_type"] = "multi_label_classification"
    return {_CONFIG: config, PREPROCESSOR: write_preprocessor(model)}


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
    config_names=(_CONFIG, PREPROCESSOR, _PROCESSOR),
    read_config=_read_configs,
    write_configs=_write_configs,
    defaults=_defaults,
)
