"""Google's names for the parameters of ResNets and of hybrids' backbones.

Hybrids and post-activation ResNets have `conv_root`, `gn_root` and, in `block{b}/unit{u}`,
`conv1` to `conv3` and `gn1` to `gn3`; a stage's first unit also has `conv_proj` and `gn_proj`.
big_vision's pre-activation ResNets use the same names, with `root_block/` and `norm-pre-head`. A
norm's scale and bias are (1, 1, 1, C) in hybrids' files, (C,) in others. The files that BiT
released are TensorFlow's: `standardized_conv2d/kernel` and `group_norm/{gamma,beta}` in
`resnet/block{b}/unit{uu}/{a,b,c}`, the projection `a/proj`, and a head that is a 1x1 convolution.
In some of them a number without meaning follows `standardized_conv2d`. The attention of an
AxialResNet has names of ours, `columns` and `rows`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import numpy as np

from vit_jax.weights.stored import AnyArray, lazily

# Outside the units: Google's name -> our path.
_ROOT = {
    "conv_root/kernel": "backbone/root/kernel",
    "gn_root/scale": "backbone/root_norm/scale",
    "gn_root/bias": "backbone/root_norm/bias",
}
_BIG_VISION = {
    "root_block/conv_root/kernel": "backbone/root/kernel",
    "norm-pre-head/scale": "backbone/norm/scale",
    "norm-pre-head/bias": "backbone/norm/bias",
}
_BIT = {
    "resnet/root_block/standardized_conv2d/kernel": "backbone/root/kernel",
    "resnet/group_norm/gamma": "backbone/norm/scale",
    "resnet/group_norm/beta": "backbone/norm/bias",
    "resnet/head/conv2d/kernel": "head/kernel",
    "resnet/head/conv2d/bias": "head/bias",
}
_PATH = _ROOT | _BIG_VISION | _BIT

# Within a unit: Google's name -> our path.
_IN_UNIT = {
    f"{theirs}/{leaf}": f"{ours}/{leaf}"
    for theirs, ours, leaves in (
        *((f"conv{i}", f"conv{i}", ("kernel",)) for i in (1, 2, 3)),
        *((f"gn{i}", f"norm{i}", ("scale", "bias")) for i in (1, 2, 3)),
        *((f"{axis}/qkv", f"{axis}/qkv", ("kernel",)) for axis in ("columns", "rows")),
        *(
            (f"{axis}/gn_qkv", f"{axis}/qkv_norm", ("scale", "bias"))
            for axis in ("columns", "rows")
        ),
        *((f"{axis}/gn", f"{axis}/norm", ("scale", "bias")) for axis in ("columns", "rows")),
        *((axis, axis, ("offset_embedding",)) for axis in ("columns", "rows")),
        ("conv_proj", "projection", ("kernel",)),
        ("gn_proj", "projection_norm", ("scale", "bias")),
    )
    for leaf in leaves
}
_BIT_IN_UNIT = {
    f"{theirs}/{leaf}": ours
    for i, theirs in enumerate("abc", 1)
    for leaf, ours in (
        ("standardized_conv2d/kernel", f"conv{i}/kernel"),
        ("group_norm/gamma", f"norm{i}/scale"),
        ("group_norm/beta", f"norm{i}/bias"),
    )
} | {"a/proj/standardized_conv2d/kernel": "projection/kernel"}

_NAME_IN_UNIT, _BIT_NAME_IN_UNIT = (
    {path: name for name, path in names.items()} for names in (_IN_UNIT, _BIT_IN_UNIT)
)
_NAME, _BIT_NAME = ({path: name for name, path in names.items()} for names in (_ROOT, _BIT))

_UNIT_NAME = re.compile(r"block([1-9]\d?)/unit0?([1-9]\d?)/(.+)", re.ASCII)
_UNIT_PATH = re.compile(r"backbone/stage(\d+)/unit(\d+)/(.+)", re.ASCII)
_BIT_NUMBER = re.compile(r"(?<=/standardized_conv2d)_\d+(?=/kernel$)", re.ASCII)


def path_of(name: str) -> str | None:
    """Our path for a name in a file; None if the name is not one of these."""
    name = _BIT_NUMBER.sub("", name)
    if path := _PATH.get(name):
        return path
    in_unit = _UNIT_NAME.fullmatch(name.removeprefix("resnet/"))
    names = _BIT_IN_UNIT if name.startswith("resnet/") else _IN_UNIT
    if in_unit is None or in_unit[3] not in names:
        return None
    return f"backbone/stage{in_unit[1]}/unit{in_unit[2]}/{names[in_unit[3]]}"


def root_pool(names: Collection[str]) -> dict[str, str]:
    """The value of `ModelConfig.root_pool` that names tell: only big_vision's pads with -inf."""
    return {"root_pool": "inf"} if any(name in _BIG_VISION for name in names) else {}


def as_ours(name: str, path: str, array: AnyArray) -> AnyArray:
    """The array in our shape: without the leading axes of length 1 of norms and of BiT's head.

    Args:
      name: in the file.
      path: ours.
    """
    is_norm = path.startswith("backbone/") and path.endswith(("/scale", "/bias"))
    if is_norm:
        ndim = 1
    elif path == "head/kernel" and name in _BIT:
        ndim = 2
    else:
        return array
    if set(array.shape[:-ndim]) != {1}:
        return array
    shape = tuple(array.shape[-ndim:])
    return lazily(array, lambda x: x.reshape(shape), shape=shape)


def is_bit(flat: Mapping[str, object]) -> bool:
    """Whether parameters by our paths are those of a pre-activation ResNet."""
    return "backbone/norm/scale" in flat


def name_of(path: str, *, bit: bool) -> str | None:
    """The name in BiT's released files, or in the other files; None if the path has none."""
    if in_unit := _UNIT_PATH.fullmatch(path):
        stage, unit, rest = in_unit.groups()
        if bit:
            name, start = _BIT_NAME_IN_UNIT.get(rest), f"resnet/block{stage}/unit{int(unit):02}"
        else:
            name, start = _NAME_IN_UNIT.get(rest), f"block{stage}/unit{unit}"
        return name and f"{start}/{name}"
    return (_BIT_NAME if bit else _NAME).get(path)


def as_theirs(path: str, array: np.ndarray, *, bit: bool, hybrid: bool) -> np.ndarray:
    """The array in the shape that it has in BiT's files, in hybrids' files or in the others."""
    if bit and path == "head/kernel":
        return array[None, None]
    if hybrid and path.startswith("backbone/") and not path.endswith("/kernel"):
        return array[None, None, None]
    return array
