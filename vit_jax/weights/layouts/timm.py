"""timm's layout: the names and the arrangement of its ViT, as `.safetensors`.

timm pools by the class token (`norm`), or by the mean over the patches (`fc_norm` after the mean).
With `class_token=False` and `fc_norm=False` its mean comes after the norm, as in Google's files.
`timm_config.py` reads and writes the `config.json` of timm's hub files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params
from vit_jax.weights.layouts.layout import Configs, Described, ImageSize, Layout, Values
from vit_jax.weights.layouts.positions import patch_positions, with_class_position
from vit_jax.weights.layouts.pytorch import Names, from_pytorch, module, num_heads, to_pytorch
from vit_jax.weights.layouts.timm_config import (
    CONFIG_NAME,
    EPSILON,
    defaults,
    read_configs,
    write_configs,
)
from vit_jax.weights.stored import AnyArray, lazily

_STEM = "patch_embed.proj.weight"
_BLOCK = "blocks.{}"
# Query, key and value are one array in the files, `attn.qkv`. Here each has a name of its own.
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


def from_timm(
    flat: Mapping[str, AnyArray], heads: int, image_size: ImageSize | None = None
) -> tuple[Params, str]:
    """Maps timm's names to nested parameters that are read later, and finds the pooling.

    Args:
      flat: the file's arrays.
      heads: number of attention heads.
      image_size: pixels, a side or (height, width), if known; otherwise the patches are taken for
        a square if their number allows it.

    Returns:
      The parameters, and the value of `ModelConfig.pooling`.

    Raises:
      UserError: names that are not those of a plain ViT; all are listed with their shapes.
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
            "timm models with fc_norm without a class token are not supported; use one with "
            "class_token=True or fc_norm=False"
        )
    shapes = [params[name].shape for name in ("pos_embedding", "registers") if name in params]
    # Other shapes are refused later, beside those that the model wants.
    if "pos_embedding" in params and all(len(shape) == 3 for shape in shapes):
        params |= _our_positions(params, image_size)
    pooling = "gap_timm" if is_mean else "token" if "cls" in params else "gap"
    return params, pooling


def to_timm(params: Params, model: ModelConfig) -> dict[str, np.ndarray]:
    """Maps nested parameters to timm's names; inverts `from_timm`.

    Raises:
      UserError: timm's ViT has no form for the model.
    """
    _require_expressible(model)
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
        # timm adds positions to the registers too, which come after the class token.
        first = int(model.has_class_token)
        cls, patches = np.split(flat["pos_embed"], [first], axis=1)
        none = np.zeros_like(flat["reg_token"])
        flat["pos_embed"] = np.concatenate([cls, none, patches], axis=1)
    return flat


def _matches(names: Collection[str], configs: Configs) -> bool:
    return _STEM in names


def _read(
    arrays: Mapping[str, AnyArray], described: Described, image_size: ImageSize | None
) -> tuple[Params, Values]:
    width = arrays[_STEM].shape[0] if arrays[_STEM].shape else 0
    params, pooling = from_timm(arrays, num_heads(described, width), image_size)
    # timm's config, whose other forms are refused, or the name of the norm tells it.
    is_shown = pooling == "gap_timm" or bool(described.values)
    return params, {"pooling": pooling} if is_shown else {}


def _require_expressible(model: ModelConfig) -> None:
    if model.family != "vit":
        raise UserError(
            f"the layout timm has plain ViTs only, not {model.name}; write this model with "
            "--layout=google"
        )
    missing = [
        words
        for is_used, words in (
            (model.pooling == "attention", "attention pooling like ours"),
            (model.representation_size, "representation layer"),
            (model.positions == "sincos2d", "fixed positions (sincos2d)"),
            (model.positions not in ("learned", "sincos2d"), f"positions={model.positions}"),
        )
        if is_used
    ]
    if missing:
        raise UserError(
            f"timm's ViT has no {' and no '.join(missing)}; write this model with --layout=google"
        )
    # A smaller epsilon differs in rounding only.
    if model.norm_epsilon is not None and model.norm_epsilon > EPSILON:
        raise UserError(
            f"timm's ViT has no norm_epsilon={model.norm_epsilon}, it is always {EPSILON}; write "
            "this model with --layout=google or --layout=huggingface"
        )


def _third(fused: AnyArray, i: int) -> AnyArray:
    width = fused.shape[0] // 3
    rows = slice(i * width, (i + 1) * width)
    return lazily(fused, lambda x: x[rows], shape=(width, *fused.shape[1:]))


def _our_positions(params: Params, image_size: ImageSize | None) -> Params:
    """Positions of class token and patches alone; those of registers are added to the registers."""
    positions, has_class, registers = params["pos_embedding"], "cls" in params, 0
    if "registers" in params:
        _, registers, _ = params["registers"].shape
    _, length, width = positions.shape
    prefix = has_class + registers
    patches = patch_positions(length, prefix, params["embedding"]["kernel"].shape[0], image_size)
    shape = (1, has_class + patches, width)
    if registers and patches == length - prefix:
        rest = np.r_[: int(has_class), prefix:length]
        own = slice(int(has_class), prefix)
        return {
            "pos_embedding": lazily(positions, lambda x: x[:, rest], shape=shape),
            "registers": lazily(params["registers"], lambda x: x + np.asarray(positions)[:, own]),
        }
    if has_class and patches == length:  # no_embed_class
        return {"pos_embedding": with_class_position(positions)}
    return {}


TIMM = Layout(
    name="timm",
    suffix=".safetensors",
    matches=_matches,
    read=_read,
    write=to_timm,
    hidden=("num_heads", "gelu", "norm_epsilon", "preprocessing"),
    config_names=(CONFIG_NAME,),
    read_config=read_configs,
    write_configs=write_configs,
    defaults=defaults,
)
