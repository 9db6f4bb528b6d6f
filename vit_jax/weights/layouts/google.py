"""Google's layout: the names of the files that the paper's authors released, as `.npz`.

Released files number the modules of an encoder block in one sequence (`LayerNorm_0`,
`MultiHeadDotProductAttention_1`, `LayerNorm_2`, `MlpBlock_3`), newer Linen files number each class
on its own (`LayerNorm_0`, `MultiHeadDotProductAttention_0`, `LayerNorm_1`, `MlpBlock_0`). Both are
read; the released numbering is written. big_vision also stores all blocks stacked, without a number
(`Transformer/encoderblock/…`). Attention pooling and registers are not in the released files:
pooling is named as in big_vision (`MAPHead_0`), registers are `registers`. Positions in 2-D, before
every block and relative ones have names of ours, and so have the halves of an axial block,
`RowBlock` and `ColumnBlock`. A Mixer's blocks are `MixerBlock_{i}`.
`google_resnet.py` has the names of ResNets and of the backbones of hybrids.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from flax import traverse_util

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params
from vit_jax.weights.layouts import google_resnet
from vit_jax.weights.layouts.layout import Configs, Described, ImageSize, Layout, Values
from vit_jax.weights.layouts.positions import patch_positions, with_class_position
from vit_jax.weights.stored import AnyArray, require_floats, stack_blocks

# Positions of Table 8 that the released files lack: ours.
_POSITIONS_OF_BLOCKS = ("pos_embedding", "row_embedding", "column_embedding", "offset_embedding")
_NORM = ("scale", "bias")
_DENSE = ("kernel", "bias")


def _module(ours: str, theirs: str, leaves: tuple[str, str]) -> dict[str, str]:
    return {f"{ours}/{leaf}": f"{theirs}/{leaf}" for leaf in leaves}


def _attention(ours: str, theirs: str) -> dict[str, str]:
    return {
        path: name
        for part in ("query", "key", "value", "out")
        for path, name in _module(f"{ours}/{part}", f"{theirs}/{part}", _DENSE).items()
    }


def _mlp(ours: str, theirs: str) -> dict[str, str]:
    return _module(f"{ours}/dense1", f"{theirs}/Dense_0", _DENSE) | _module(
        f"{ours}/dense2", f"{theirs}/Dense_1", _DENSE
    )


def _block(norm1: str, attention: str, norm2: str, mlp: str) -> dict[str, str]:
    return {
        **_module("blocks/norm1", norm1, _NORM),
        **_attention("blocks/attention", attention),
        **_module("blocks/norm2", norm2, _NORM),
        **_mlp("blocks/mlp", mlp),
        **{f"blocks/{name}": name for name in _POSITIONS_OF_BLOCKS},
    }


# Our path -> Google's name. Names in a block lack their prefix: `Transformer/encoderblock_{i}/`, or
# `MixerBlock_{i}/` for a Mixer.
_PLAIN_BLOCK = _block("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
_RELEASED_BLOCK = {
    **_PLAIN_BLOCK,
    **{
        path.replace("blocks/", f"blocks/{ours}/", 1): f"{theirs}/{name}"
        for ours, theirs in (("rows", "RowBlock"), ("columns", "ColumnBlock"))
        for path, name in _PLAIN_BLOCK.items()
        if "/" in name
    },
}
_LINEN_BLOCK = _block("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
_MIXER_BLOCK = {
    **_module("blocks/norm1", "LayerNorm_0", _NORM),
    **_mlp("blocks/token_mixing", "token_mixing"),
    **_module("blocks/norm2", "LayerNorm_1", _NORM),
    **_mlp("blocks/channel_mixing", "channel_mixing"),
}
_OUTSIDE_BLOCKS = {
    "cls": "cls",
    "registers": "registers",
    "pos_embedding": "Transformer/posembed_input/pos_embedding",
    "row_embedding": "Transformer/posembed_input/row_embedding",
    "column_embedding": "Transformer/posembed_input/column_embedding",
    "shared_pos_embedding": "Transformer/posembed_shared/pos_embedding",
    "shared_row_embedding": "Transformer/posembed_shared/row_embedding",
    "shared_column_embedding": "Transformer/posembed_shared/column_embedding",
    **_module("embedding", "embedding", _DENSE),
    **_module("norm", "Transformer/encoder_norm", _NORM),
    "pooling/probe": "MAPHead_0/probe",
    **_attention("pooling/attention", "MAPHead_0/MultiHeadDotProductAttention_0"),
    **_module("pooling/norm", "MAPHead_0/LayerNorm_0", _NORM),
    **_mlp("pooling/mlp", "MAPHead_0/MlpBlock_0"),
    **_module("pre_logits", "pre_logits", _DENSE),
    **_module("head", "head", _DENSE),
}

_MIXER_OUTSIDE_BLOCKS = {
    **_module("embedding", "stem", _DENSE),
    **_module("norm", "pre_head_layer_norm", _NORM),
    **_module("head", "head", _DENSE),
}

# Google's name -> our path. big_vision keeps the positions at the top level, and kept them in the
# encoder until 2022.
_PATH_OUTSIDE_BLOCKS = {
    "pos_embedding": "pos_embedding",
    "Transformer/pos_embedding": "pos_embedding",
    **{name: path for path, name in _OUTSIDE_BLOCKS.items()},
    **{name: path for path, name in _MIXER_OUTSIDE_BLOCKS.items()},
    # Attention pooling had no module of its own when ViT-G was made.
    **{
        name.removeprefix("MAPHead_0/"): path
        for path, name in _OUTSIDE_BLOCKS.items()
        if name.startswith("MAPHead_0/")
    },
}
_PATH_IN_BLOCK = {
    name: path for names in (_RELEASED_BLOCK, _LINEN_BLOCK) for path, name in names.items()
}
_PATH_IN_MIXER_BLOCK = {name: path for path, name in _MIXER_BLOCK.items()}
_BLOCK_NAME = re.compile(r"(Transformer/encoderblock|MixerBlock)_(0|[1-9][0-9]{0,3})/(.+)")
_STACKED_NAME = re.compile(r"Transformer/encoderblock/(.+)")
# A whole training state in a file: the prefix of its parameters, and the prefixes that are skipped.
_PREFIXES = {"opt/target/": ("opt/",), "params/": ("opt/", "extra/", "chrono/")}


def from_google(flat: Mapping[str, AnyArray]) -> Params:
    """Maps Google's names to the model's nested parameters.

    Names may have the prefix `params/` or `opt/target/`. Then the rest of a training state is
    skipped: the optimizer's state under `opt/`, and big_vision's counters. Nothing else is. Blocks
    are stacked on axis 0 in depth order when they are read. Arrays keep their dtype and values.

    Raises:
      UserError: names that are not understood (all are listed), two names for one parameter, or
        blocks that do not start at 0 or differ in their names or shapes.
    """
    outside: dict[str, AnyArray] = {}
    stacks: dict[str, dict[int, AnyArray]] = {}
    unknown: list[str] = []
    for name, short_name in _short_names(flat):
        path, block = _place(short_name)
        if short_name is None or path is None:
            unknown.append(f"{name} {tuple(flat[name].shape)}")
        elif (path in outside) if block is None else (block in stacks.get(path, {})):
            raise UserError(
                f"{name} is the second name for {path} in these weights; "
                "remove one of the two from the file"
            )
        elif block is None:
            outside[path] = google_resnet.as_ours(short_name, path, flat[name])
        else:
            stacks.setdefault(path, {})[block] = flat[name]
    if unknown:
        raise UserError(
            f"{len(unknown)} names are not those of a model in Google's layout: "
            f"{', '.join(sorted(unknown))}; give a model's .npz file in that layout"
        )
    require_floats({name: flat[name] for name, short in _short_names(flat) if short is not None})
    _check_blocks(stacks)
    blocks = stack_blocks(stacks)
    for path in sorted(blocks.keys() & outside.keys()):
        raise UserError(f"the file has {path} both block by block and stacked; remove one of them")
    return traverse_util.unflatten_dict(outside | blocks, sep="/")


def to_google(params: Params) -> dict[str, np.ndarray]:
    """Maps nested parameters to Google's released names, one entry a block; inverts `from_google`.

    Raises:
      UserError: the layout has no name for some parameters (all are listed).
    """
    flat: dict[str, np.ndarray] = {}
    unknown: list[str] = []
    ours = traverse_util.flatten_dict(params, sep="/")
    is_mixer = _is_mixer(ours)
    is_bit, is_hybrid = google_resnet.is_bit(ours), "embedding/kernel" in ours
    outside = _MIXER_OUTSIDE_BLOCKS if is_mixer else {} if is_bit else _OUTSIDE_BLOCKS
    in_block = _MIXER_BLOCK if is_mixer else _RELEASED_BLOCK
    block_name = "MixerBlock" if is_mixer else "Transformer/encoderblock"
    for path, leaf in ours.items():
        name = outside.get(path) or google_resnet.name_of(path, bit=is_bit)
        if name is not None:
            array = np.asarray(leaf)
            flat[name] = google_resnet.as_theirs(path, array, bit=is_bit, hybrid=is_hybrid)
        elif path in in_block:
            for block, array in enumerate(np.asarray(leaf)):
                flat[f"{block_name}_{block}/{in_block[path]}"] = array
        else:
            unknown.append(path)
    if unknown:
        raise UserError(
            f"Google's layout has no name for {', '.join(sorted(unknown))}; "
            "it holds ViTs, axial ones, hybrids, ResNets and Mixers only"
        )
    return flat


def _matches(names: Collection[str], configs: Configs) -> bool:
    # A plain word, such as `cls`, may occur in any layout.
    return any(
        short is not None and "/" in short and _place(short)[0] is not None
        for _, short in _short_names(names)
    )


def _read(
    arrays: Mapping[str, AnyArray], described: Described, image_size: ImageSize | None
) -> tuple[Params, Values]:
    short_names = [short for _, short in _short_names(arrays) if short is not None]
    params = from_google(arrays)
    described_size = described.values.get("image_size", image_size)
    return _with_class_position(params, described_size), google_resnet.root_pool(short_names)


def _with_class_position(params: Params, image_size: ImageSize | None) -> Params:
    """Gives the class token a position of zeros if it has none, as big_vision's `pool_type="tok"`.

    That joins the class token to the patches after these have their positions.
    """
    shapes = [tuple(params[key].shape) for key in ("cls", "pos_embedding") if key in params]
    kernel = params.get("embedding", {}).get("kernel")
    if [len(shape) for shape in shapes] != [3, 3] or kernel is None or len(kernel.shape) != 4:
        return params
    length = shapes[1][1]
    # A hybrid's patches are counted in positions of its ResNet, so there the size does not tell.
    size = None if "backbone" in params else image_size
    if patch_positions(length, 1, kernel.shape[0], size) != length:
        return params
    return params | {"pos_embedding": with_class_position(params["pos_embedding"])}


def _write(params: Params, model: ModelConfig) -> dict[str, np.ndarray]:
    return to_google(params)


def _short_names(names: Collection[str]) -> Iterable[tuple[str, str | None]]:
    """Each name with its form without the file's prefix; None if it lacks that prefix."""
    prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in names)), "")
    skipped = _PREFIXES.get(prefix, ())
    return [
        (name, name.removeprefix(prefix) if name.startswith(prefix) else None)
        for name in names
        if name.startswith(prefix) or not name.startswith(skipped)
    ]


def _place(short_name: str | None) -> tuple[str | None, int | None]:
    """Our path, None if the name is unknown; and the block's number, None outside the blocks."""
    if short_name is None:
        return None, None
    if in_block := _BLOCK_NAME.fullmatch(short_name):
        paths = _PATH_IN_MIXER_BLOCK if in_block[1] == "MixerBlock" else _PATH_IN_BLOCK
        return paths.get(in_block[3]), int(in_block[2])
    if in_stack := _STACKED_NAME.fullmatch(short_name):
        return _PATH_IN_BLOCK.get(in_stack[1]), None
    return _PATH_OUTSIDE_BLOCKS.get(short_name) or google_resnet.path_of(short_name), None


def _is_mixer(paths: Collection[str]) -> bool:
    return any(path.startswith("blocks/token_mixing/") for path in paths)


def _check_blocks(stacks: Mapping[str, Mapping[int, AnyArray]]) -> None:
    blocks = {block for arrays in stacks.values() for block in arrays}
    depth = max(blocks, default=-1) + 1
    name = "MixerBlock" if _is_mixer(stacks) else "encoderblock"
    if missing := sorted(set(range(depth)) - blocks):
        raise UserError(
            f"{name}_{missing[0]} is missing although the file has {name}_{depth - 1}; "
            "the file is incomplete, download or copy it again"
        )
    if incomplete := [
        f"{name}_{block}: {path.removeprefix('blocks/')}"
        for path, arrays in sorted(stacks.items())
        for block in sorted(blocks - arrays.keys())
    ]:
        raise UserError(
            f"missing although other blocks have them: {', '.join(incomplete)}; "
            "the file is incomplete, download or copy it again"
        )


GOOGLE = Layout(
    name="google",
    suffix=".npz",
    matches=_matches,
    read=_read,
    write=_write,
    hidden=("gelu", "norm_epsilon", "preprocessing", "root_pool"),
)
