"""timm's names, and the `config.json` that timm's hub files have beside the weights.

timm pools by the class token (`norm`), or by the mean over the patches (`fc_norm` after it). With
`class_token=False` and `fc_norm=False` its mean is taken after the norm, as in Google's files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.sizes import parse_name
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.weights.layouts.pytorch import Names, from_pytorch, module, to_pytorch
from vit_jax.weights.stored import AnyArray, lazily

_BLOCK = "blocks.{}"
# Query, key and value are one array in the files, `attn.qkv`; here they are names of their own.
_PARTS = {"query": "attn.q", "key": "attn.k", "value": "attn.v"}

_NAMES: Names = {
    "cls_token": ("cls", "plain"),
    "reg_token": ("registers", "plain"),
    "pos_embed": ("pos_embedding", "plain"),
    **module("patch_embed.proj", "embedding", "conv"),
    **module(f"{_BLOCK}.norm1", "blocks/norm1", "norm"),
    **{
        name: place
        for part, theirs in _PARTS.items()
        for name, place in module(
            f"{_BLOCK}.{theirs}", f"blocks/attention/{part}", "split", "split_bias"
        ).items()
    },
    **module(f"{_BLOCK}.attn.proj", "blocks/attention/out", "merge"),
    **module(f"{_BLOCK}.norm2", "blocks/norm2", "norm"),
    **module(f"{_BLOCK}.mlp.fc1", "blocks/mlp/dense1", "linear"),
    **module(f"{_BLOCK}.mlp.fc2", "blocks/mlp/dense2", "linear"),
    **module("norm", "norm", "norm"),
    **module("head", "head", "linear"),
}
_NORM_NAMES = {True: "fc_norm.", False: "norm."}

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ARCHITECTURES = {
    **{"Ti/16": "vit_tiny_patch16_224", "S/32": "vit_small_patch32_224"},
    **{"S/16": "vit_small_patch16_224", "S/8": "vit_small_patch8_224"},
    **{"B/32": "vit_base_patch32_224", "B/16": "vit_base_patch16_224"},
    **{"B/8": "vit_base_patch8_224", "L/32": "vit_large_patch32_224"},
    **{"L/16": "vit_large_patch16_224", "L/14": "vit_large_patch14_224"},
    **{"H/14": "vit_huge_patch14_224", "g/14": "vit_giant_patch14_224"},
    **{"G/14": "vit_gigantic_patch14_224"},
}

_EPSILON = 1e-6
_GELUS = {"gelu": "exact", "gelu_tanh": "tanh"}

# What an architecture's code in timm says and neither the arrays nor the config repeat: a number of
# heads that is not the usual one of the width, and tanh in the GELU.
_GIANTS = tuple(f"vit_giantopt_patch16_siglip_gap_{side}" for side in (256, 384))
_HEADS = {"test_vit": 2, "vit_base_patch16_gap_224": 16, **dict.fromkeys(_GIANTS, 16)}
_WITH_TANH_GELU = (
    "vit_base_patch32_siglip_gap_256",
    "vit_large_patch16_siglip_gap_512",
    *(f"vit_so400m_patch16_siglip_gap_{side}" for side in (256, 384, 512)),
    *_GIANTS,
)


def is_timm(names: set[str]) -> bool:
    """Whether the names of a file are timm's."""
    return "patch_embed.proj.weight" in names


def from_timm(
    flat: Mapping[str, AnyArray], heads: int, image_size: int | Sequence[int] | None = None
) -> tuple[dict[str, Any], str]:
    """The model's nested parameters, to be read later, and its kind of pooling.

    Args:
      heads: of attention.
      image_size: pixels, side or (height, width), if known; else the patches are taken for a
        square, as far as it goes.

    Raises:
      UserError: names that are not those of a plain ViT, all listed with their shapes.
    """
    flat = dict(flat)
    is_mean = any(name.startswith("fc_norm.") for name in flat)
    for name in [name for name in flat if ".attn.qkv." in name]:
        fused = flat.pop(name)
        if not fused.shape or fused.shape[0] % 3:
            raise UserError(
                f"{name} has the shape {tuple(fused.shape)}, which is not that of a query, a key "
                "and a value; give the file of a plain ViT"
            )
        for i, theirs in enumerate(_PARTS.values()):
            flat[name.replace("attn.qkv", theirs)] = _third(fused, i)
    names = {
        name.replace("norm.", _NORM_NAMES[is_mean]) if name.startswith("norm.") else name: place
        for name, place in _NAMES.items()
    }
    params = from_pytorch(flat, names, heads)
    if is_mean and "cls" not in params:
        raise UserError(
            "fc_norm without a class token is a form that this package has not; give a file whose "
            "model has class_token=True, or fc_norm=False"
        )
    shapes = [params[name].shape for name in ("pos_embedding", "registers") if name in params]
    # Others are refused with the model's own shapes.
    if "pos_embedding" in params and all(len(shape) == 3 for shape in shapes):
        params |= _with_positions_as_ours(params, image_size)
    pooling = "gap_timm" if is_mean else "token" if "cls" in params else "gap"
    return params, pooling


def to_timm(params: Mapping[str, Any], model: ModelConfig) -> dict[str, np.ndarray]:
    """Flat parameters with timm's names; `from_timm`'s inverse.

    Raises:
      UserError: the model has a form that timm's ViT has not.
    """
    if model.family != "vit":
        raise UserError(
            f"the layout timm is written of plain ViTs only, not of {model.name}; write this model "
            "with --layout=google"
        )
    if model.pooling == "attention" or model.representation_size or model.positions != "learned":
        raise UserError(
            "timm's ViT has no attention pooling as here, no representation layer and no fixed "
            "positions; write this model with --layout=google"
        )
    # A smaller epsilon is no other function but for rounding.
    if model.norm_epsilon is not None and model.norm_epsilon > _EPSILON:
        raise UserError(
            f"timm's ViT has no norm_epsilon={model.norm_epsilon}, it is always {_EPSILON}; write "
            "this model with --layout=google or --layout=huggingface"
        )
    flat = to_pytorch(params, _NAMES)
    for part in ("weight", "bias"):
        for i in range(model.size.depth):
            block = _BLOCK.format(i)
            flat[f"{block}.attn.qkv.{part}"] = np.concatenate(
                [flat.pop(f"{block}.{theirs}.{part}") for theirs in _PARTS.values()]
            )
    if model.pooling == "gap_timm":
        for leaf in ("weight", "bias"):
            flat[f"fc_norm.{leaf}"] = flat.pop(f"norm.{leaf}")
    if model.registers:
        # timm adds positions to the registers too, which stand after the class token.
        first = int(model.has_class_token)
        cls, patches = np.split(flat["pos_embed"], [first], axis=1)
        none = np.zeros_like(flat["reg_token"])
        flat["pos_embed"] = np.concatenate([cls, none, patches], axis=1)
    return flat


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's `config.json` says, as values of a `ModelConfig`, and `class_names` if known.

    Raises:
      UserError: a pooling or an activation function that this package has not.
    """
    arguments, data = config.get("model_args", {}), config.get("pretrained_cfg", config)
    architecture = config.get("architecture", "")
    _require_known_form(config.get("global_pool", "token"), arguments)
    size = arguments.get("img_size") or data.get("input_size", (3, 224, 224))[1:]
    height, width = (size, size) if isinstance(size, int) else size
    values: dict[str, Any] = {"image_size": height if height == width else (height, width)}
    if heads := arguments.get("num_heads", _HEADS.get(architecture)):
        values["num_heads"] = heads
    activation = "gelu_tanh" if architecture in _WITH_TANH_GELU else "gelu"
    values["gelu"] = _GELUS[arguments.get("act_layer", activation)]
    squash = data.get("crop_mode") == "squash"
    values["preprocessing"] = PreprocessingConfig(
        mean=tuple(data.get("mean", (0.5, 0.5, 0.5))),
        std=tuple(data.get("std", (0.5, 0.5, 0.5))),
        resize="squash" if squash else "short_side",
        short_side=None if squash else math.floor(min(height, width) / data.get("crop_pct", 0.9)),
        interpolation="bilinear" if data.get("interpolation") == "bilinear" else "bicubic",
        antialias=True,
    )
    if names := data.get("label_names") or config.get("label_names"):
        values["class_names"] = tuple(names)
    return values


def write_config(model: ModelConfig, class_names: tuple[str, ...] | None) -> dict[str, Any]:
    """What timm needs to build the model, `timm.create_model("local-dir:DIRECTORY")`."""
    size, preprocessing = model.size, model.preprocessing
    assert preprocessing is not None
    name, patch = parse_name(model.name).size, model.patch_size
    ratio = size.mlp_dim / size.width
    if int(size.width * ratio) != size.mlp_dim:  # timm rounds down
        ratio = math.nextafter(ratio, math.inf)
    pool = "token" if model.pooling == "token" else "avg"
    is_squash = preprocessing.resize == "squash"
    shorter = min(model.input_size)
    config: dict[str, Any] = {
        "architecture": _ARCHITECTURES.get(f"{name}/{patch}", "vit_base_patch16_224"),
        "num_classes": model.num_classes,
        "num_features": size.width,
        "global_pool": pool,
        "model_args": {
            "img_size": list(model.input_size),
            "patch_size": patch,
            "embed_dim": size.width,
            "depth": size.depth,
            "num_heads": size.num_heads,
            "mlp_ratio": ratio,
            "num_classes": model.num_classes,
            "class_token": model.has_class_token,
            "reg_tokens": model.registers,
            "global_pool": pool,
            "fc_norm": model.pooling == "gap_timm",
            "act_layer": "gelu_tanh" if model.gelu == "tanh" else "gelu",
        },
        "pretrained_cfg": {
            "input_size": [3, *model.input_size],
            "interpolation": preprocessing.interpolation,
            "crop_pct": 1.0 if is_squash else _crop_share(shorter, preprocessing.short_side),
            "crop_mode": "squash" if is_squash else "center",
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "num_classes": model.num_classes,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    if class_names is not None:
        config["label_names"] = list(class_names)
    return config


def assumed(file_name: str, side: int) -> dict[str, Any]:
    """Values for a file without a config: DeiT's by its name, else those of timm's ViTs."""
    is_deit = file_name.startswith("deit")
    preprocessing = PreprocessingConfig(
        mean=_IMAGENET_MEAN if is_deit else (0.5, 0.5, 0.5),
        std=_IMAGENET_STD if is_deit else (0.5, 0.5, 0.5),
        resize="short_side",
        # DeiT was published with 256 for 224 pixels, timm's ViTs have a crop of 0.9.
        short_side=round(side * 256 / 224) if is_deit else math.floor(side / 0.9),
        interpolation="bicubic",
        antialias=True,
    )
    return {"gelu": "exact", "norm_epsilon": _EPSILON, "preprocessing": preprocessing}


def _require_known_form(pool: str, arguments: Mapping[str, Any]) -> None:
    has_class_token = arguments.get("class_token", True)
    problems = {
        f"global_pool={pool}": pool not in ("token", "avg"),
        "global_pool=avg with fc_norm=false and a class token": (
            pool == "avg" and arguments.get("fc_norm") is False and has_class_token
        ),
        "pool_include_prefix": arguments.get("pool_include_prefix", False),
        f"act_layer={arguments.get('act_layer')}": arguments.get("act_layer", "gelu") not in _GELUS,
    }
    if found := [problem for problem, is_there in problems.items() if is_there]:
        raise UserError(
            f"its config.json has {', '.join(found)}, which this package has not; give the file "
            "of a plain ViT"
        )


def _crop_share(side: int, short_side: int | None) -> float:
    share = side / (short_side or side)
    # timm rounds down what it resizes to.
    return share if int(side / share) == (short_side or side) else math.nextafter(share, 0)


def _third(fused: AnyArray, i: int) -> AnyArray:
    width = fused.shape[0] // 3
    rows = slice(i * width, (i + 1) * width)
    return lazily(fused, lambda x: x[rows], shape=(width, *fused.shape[1:]))


def _with_positions_as_ours(
    params: Mapping[str, Any], image_size: int | Sequence[int] | None
) -> dict[str, Any]:
    """Positions of the class token and the patches; those of registers go into the registers."""
    positions, has_class, registers = params["pos_embedding"], "cls" in params, 0
    if "registers" in params:
        _, registers, _ = params["registers"].shape
    _, length, width = positions.shape
    prefix = has_class + registers
    patches = _patches(length, prefix, params["embedding"]["kernel"].shape[0], image_size)
    shape = (1, has_class + patches, width)
    if registers and patches == length - prefix:
        rest = np.r_[: int(has_class), prefix:length]
        own = slice(int(has_class), prefix)
        return {
            "pos_embedding": lazily(positions, lambda x: x[:, rest], shape=shape),
            "registers": lazily(params["registers"], lambda x: x + np.asarray(positions)[:, own]),
        }
    if has_class and patches == length:

        def with_class(x: np.ndarray) -> np.ndarray:
            return np.concatenate([np.zeros_like(x[:, :1]), x], axis=1)

        return {"pos_embedding": lazily(positions, with_class, shape=shape)}
    return {}


def _patches(length: int, prefix: int, patch: int, image_size: int | Sequence[int] | None) -> int:
    """How many of the positions are patches': with `no_embed_class` all, else all but `prefix`."""
    choices = (length - prefix, length)
    if image_size is not None:
        height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
        if (known := (height // patch) * (width // patch)) in choices:
            return known
    return next((n for n in choices if n > 0 and math.isqrt(n) ** 2 == n), choices[0])
