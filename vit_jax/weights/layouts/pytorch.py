"""How PyTorch arranges the parameters of a ViT; `timm.py` and `huggingface.py` have the names.

A linear layer is (outputs, inputs) there, a convolution (outputs, channels, height, width), and
attention heads lie side by side in one axis. So no array shows the number of heads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from vit_jax.errors import UserError
from vit_jax.models.functional import Params
from vit_jax.models.sizes import SIZES, heads_of_width, parse_name
from vit_jax.weights.layouts.layout import Described
from vit_jax.weights.stored import AnyArray, lazily, require_floats, stack_blocks

# The name in the file -> our path, and what kind of array it is. `{}` is the block's number.
Names = Mapping[str, tuple[str, str]]


class _Kind(NamedTuple):
    """How one kind of array is rearranged, in each direction."""

    to_ours: Callable[[np.ndarray, int], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


_KINDS = {
    "plain": _Kind(lambda x, heads: x, lambda x: x),
    "linear": _Kind(lambda x, heads: x.T, lambda x: x.T),
    "conv": _Kind(lambda x, heads: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)),
    # Query, key and value: ours are (width, heads, width of a head).
    "split": _Kind(
        lambda x, heads: x.T.reshape(x.shape[1], heads, -1),
        lambda x: x.reshape(x.shape[0], -1).T,
    ),
    "split_bias": _Kind(lambda x, heads: x.reshape(heads, -1), lambda x: x.reshape(-1)),
    # The projection after attention: ours is (heads, width of a head, width).
    "merge": _Kind(
        lambda x, heads: x.T.reshape(heads, -1, x.shape[0]),
        lambda x: x.reshape(-1, x.shape[-1]).T,
    ),
}


def module(theirs: str, ours: str, kind: str, bias: str = "plain") -> dict[str, tuple[str, str]]:
    """The two entries of a layer: `weight` and `bias` there, `kernel` (or `scale`) and `bias` here.

    Args:
      theirs: the layer's name in the file.
      ours: its path.
      kind: kind of the weight; "norm" for a normalisation's.
      bias: kind of the bias.
    """
    leaf, kind = ("scale", "plain") if kind == "norm" else ("kernel", kind)
    return {
        f"{theirs}.weight": (f"{ours}/{leaf}", kind),
        f"{theirs}.bias": (f"{ours}/bias", bias),
    }


def num_heads(described: Described, width: int) -> int:
    """The number of attention heads: as described, otherwise the usual number for the width.

    Raises:
      UserError: the description is of a model that is not a plain ViT.
    """
    if heads := described.values.get("num_heads"):
        return heads
    if (name := described.values.get("name")) is None:
        return heads_of_width(width)
    named = parse_name(name)
    if named.family != "vit":
        raise UserError(f"its arrays are a plain ViT's, but its description has name={name}")
    return SIZES[named.size].num_heads


def from_pytorch(flat: Mapping[str, AnyArray], names: Names, heads: int) -> Params:
    """Maps a file's arrays to nested parameters that are read later; blocks are stacked on axis 0.

    Raises:
      UserError: names that are not understood or shapes that do not fit (all are listed with their
        shapes), or blocks that are incomplete.
    """
    places = {_pattern(theirs): place for theirs, place in names.items()}
    outside: dict[str, AnyArray] = {}
    stacks: dict[str, dict[int, AnyArray]] = {}
    unknown, mis_shaped = [], []
    for name, array in flat.items():
        found = next(((m, place) for p, place in places.items() if (m := p.fullmatch(name))), None)
        if found is None:
            unknown.append(f"{name} {tuple(array.shape)}")
            continue
        match, (path, kind) = found
        ours = _turned(array, kind, heads)
        if ours is None:
            mis_shaped.append(f"{name} {tuple(array.shape)}")
        elif match.groups():
            stacks.setdefault(path, {})[int(match[1])] = ours
        else:
            outside[path] = ours
    if unknown:
        raise UserError(
            f"{len(unknown)} names are not those of a ViT that this package has: "
            f"{', '.join(sorted(unknown))}; give the file of a plain ViT"
        )
    if mis_shaped:
        raise UserError(
            f"shapes that are not those of a ViT with {heads} attention heads: "
            f"{', '.join(sorted(mis_shaped))}; give the file of a plain ViT"
        )
    require_floats(flat)
    _check_blocks(stacks)
    return traverse_util.unflatten_dict(outside | stack_blocks(stacks), sep="/")


def to_pytorch(params: Params, names: Names) -> dict[str, np.ndarray]:
    """Maps nested parameters to a file's names and arrangement; inverts `from_pytorch`.

    Raises:
      UserError: the layout has no name for some parameters (all are listed).
    """
    places = {path: (theirs, kind) for theirs, (path, kind) in names.items()}
    flat: dict[str, np.ndarray] = {}
    unknown = []
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        if path not in places:
            unknown.append(path)
            continue
        theirs, kind = places[path]
        array, turn = np.asarray(leaf), _KINDS[kind].to_theirs
        if "{}" in theirs:
            flat |= {theirs.format(i): turn(block) for i, block in enumerate(array)}
        else:
            flat[theirs] = turn(array)
    if unknown:
        raise UserError(f"this layout has no name for {', '.join(sorted(unknown))}")
    return {name: np.ascontiguousarray(array) for name, array in flat.items()}


def _pattern(theirs: str) -> re.Pattern[str]:
    return re.compile(re.escape(theirs).replace(r"\{\}", "(0|[1-9][0-9]{0,3})"))


def _turned(array: AnyArray, kind: str, heads: int) -> AnyArray | None:
    """The array in our arrangement; None if its shape does not fit."""
    turn = _KINDS[kind].to_ours
    # Found by rearranging an array of this shape that takes one byte of memory.
    template = np.broadcast_to(np.empty((), np.bool_), array.shape)
    try:
        shape = turn(template, heads).shape
    except (ValueError, IndexError):
        return None
    return lazily(array, lambda x: turn(x, heads), shape=shape)


def _check_blocks(stacks: Mapping[str, Mapping[int, AnyArray]]) -> None:
    blocks = {block for arrays in stacks.values() for block in arrays}
    blocks |= set(range(max(blocks, default=-1) + 1))
    missing = [
        f"block {block}: {path}"
        for path, arrays in sorted(stacks.items())
        for block in sorted(blocks - arrays.keys())
    ]
    if missing:
        raise UserError(
            f"missing although other blocks have them: {', '.join(missing)}; the file is "
            "incomplete, download or copy it again"
        )
