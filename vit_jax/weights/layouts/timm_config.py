"""The `config.json` that timm's hub files have beside the weights, and what timm assumes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.sizes import parse_name
from vit_jax.preprocessing import PreprocessingConfig, central_crop
from vit_jax.schema import convert
from vit_jax.weights.layouts.layout import Configs, Described, Json, Values, known_keys

CONFIG_NAME = "config.json"
EPSILON = 1e-6
_GELUS = {"gelu": "exact", "gelu_tanh": "tanh"}
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

# What timm's code of an architecture states and neither the arrays nor the config repeat: a number
# of heads that is unusual for the width, and the tanh form of GELU.
_GIANTS = tuple(f"vit_giantopt_patch16_siglip_gap_{side}" for side in (256, 384))
_HEADS = {"test_vit": 2, "vit_base_patch16_gap_224": 16, **dict.fromkeys(_GIANTS, 16)}
_WITH_TANH_GELU = (
    "vit_base_patch32_siglip_gap_256",
    "vit_large_patch16_siglip_gap_512",
    *(f"vit_so400m_patch16_siglip_gap_{side}" for side in (256, 384, 512)),
    *_GIANTS,
)


@dataclass(frozen=True)
class _Top:
    """The keys of `config.json` that matter besides the arrays."""

    architecture: str = ""
    global_pool: str = "token"
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Arguments:
    """The same of its `model_args`."""

    img_size: int | tuple[int, int] | None = None
    num_heads: int | None = None
    act_layer: str = ""
    class_token: bool = True
    fc_norm: bool | None = None
    pool_include_prefix: bool = False


@dataclass(frozen=True)
class _Data:
    """The same of its `pretrained_cfg`."""

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    crop_pct: float = 0.9
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    label_names: tuple[str, ...] = ()


def read_configs(configs: Configs) -> Described:
    """What timm's config states; nothing if the `config.json` is another library's.

    Raises:
      UserError: the config has a pooling or activation function that this package lacks.
    """
    config = configs.get(CONFIG_NAME, {})
    return read_config(config) if "architecture" in config else Described()


def read_config(config: Json) -> Described:
    """What timm's `config.json` states of the model.

    Raises:
      UserError: a key has a wrong type, or asks for something that this package lacks.
    """
    arguments, data = config.get("model_args", {}), config.get("pretrained_cfg", config)
    if not isinstance(arguments, Mapping) or not isinstance(data, Mapping):
        raise UserError(
            "its config.json has model_args or a pretrained_cfg that is no object; correct it"
        )
    top = _Top(**convert(_Top, known_keys(_Top, config, "pretrained_cfg"), CONFIG_NAME))
    form = _Arguments(**convert(_Arguments, known_keys(_Arguments, arguments), "model_args"))
    stated = _Data(**convert(_Data, known_keys(_Data, data), "pretrained_cfg"))
    _require_known_form(top.global_pool, form, stated)
    size = form.img_size or stated.input_size[1:]
    height, width = (size, size) if isinstance(size, int) else size
    values: Values = {"image_size": height if height == width else (height, width)}
    if heads := form.num_heads or _HEADS.get(top.architecture):
        values["num_heads"] = heads
    activation = "gelu_tanh" if top.architecture in _WITH_TANH_GELU else "gelu"
    values["gelu"] = _GELUS[form.act_layer or activation]
    squash = stated.crop_mode == "squash"
    values["preprocessing"] = PreprocessingConfig(
        mean=stated.mean,
        std=stated.std,
        **({} if squash else central_crop(min(height, width), stated.crop_pct)),
        interpolation="bilinear" if stated.interpolation == "bilinear" else "bicubic",
        antialias=True,
    )
    return Described(values, stated.label_names or top.label_names or None)


def write_configs(
    model: ModelConfig, class_names: tuple[str, ...] | None, loss: str | None
) -> dict[str, Json]:
    """timm's `config.json`, with which `timm.create_model("local-dir:DIRECTORY")` works."""
    del loss  # timm has no word for it.
    return {CONFIG_NAME: write_config(model, class_names)}


def write_config(model: ModelConfig, class_names: tuple[str, ...] | None) -> Json:
    """What timm needs to build the model."""
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
            "crop_pct": 1.0 if is_squash else _crop_share(shorter, preprocessing),
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


def defaults(file_name: str, shorter_side: int) -> Values:
    """Values for a file without a config: DeiT's if its name starts so, otherwise timm's ViTs'."""
    is_deit = file_name.startswith("deit")
    preprocessing = PreprocessingConfig(
        mean=_IMAGENET_MEAN if is_deit else (0.5, 0.5, 0.5),
        std=_IMAGENET_STD if is_deit else (0.5, 0.5, 0.5),
        # DeiT was published with 256 for a crop of 224 pixels; timm's ViTs crop 0.9 of the side.
        **central_crop(shorter_side, 224 / 256 if is_deit else 0.9),
        interpolation="bicubic",
        antialias=True,
    )
    return {"gelu": "exact", "norm_epsilon": EPSILON, "preprocessing": preprocessing}


def _require_known_form(pool: str, form: _Arguments, data: _Data) -> None:
    problems = {
        f"global_pool={pool}": pool not in ("token", "avg"),
        "global_pool=avg with fc_norm=false and a class token": (
            pool == "avg" and form.fc_norm is False and form.class_token
        ),
        "pool_include_prefix": form.pool_include_prefix,
        f"act_layer={form.act_layer}": form.act_layer not in ("", *_GELUS),
        f"crop_mode={data.crop_mode}": data.crop_mode not in ("center", "squash"),
        f"crop_pct={data.crop_pct}": not 0 < data.crop_pct <= 1,
        f"interpolation={data.interpolation}": data.interpolation not in ("bilinear", "bicubic"),
        f"input_size={list(data.input_size)}": data.input_size[0] != 3,
    }
    if found := [problem for problem, applies in problems.items() if applies]:
        raise UserError(
            f"its config.json has {', '.join(found)}, which is not supported; give the file of a "
            "plain ViT"
        )


def _crop_share(side: int, preprocessing: PreprocessingConfig) -> float:
    short_side = preprocessing.short_side or side
    # timm rounds down the side that it resizes to.
    for share in (preprocessing.crop_share, side / short_side):
        if share is not None and math.floor(side / share) == short_side:
            return share
    return math.nextafter(side / short_side, 0)
