"""The model that parameters belong to, inferred from their names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeVar

from flax import traverse_util

from vit_jax.errors import UserError
from vit_jax.models.functional import Params
from vit_jax.models.sizes import (
    MIXER_SIZES,
    RESNET_STAGES,
    SIZES,
    MixerSize,
    ResNetSize,
    Size,
    parse_name,
)
from vit_jax.weights.layouts.layout import ImageSize, Values

_Shapes = Mapping[str, tuple[int, ...]]
S = TypeVar("S", Size, MixerSize)

# The scheme of positions by the parameter that only it has.
_POSITIONS = {
    "pos_embedding": "learned",
    "blocks/pos_embedding": "learned_layers",
    "shared_pos_embedding": "learned_shared",
    "row_embedding": "learned2d",
    "blocks/row_embedding": "learned2d_layers",
    "shared_row_embedding": "learned2d_shared",
    "blocks/offset_embedding": "relative",
}
# How the names of an axial ViT's row blocks start.
_AXIAL = "blocks/rows/"
_AXIAL_UNIT = "backbone/stage1/unit1"
_UNIT = re.compile(r"backbone/stage(\d+)/unit(\d+)/", re.ASCII)


def infer_model(params: Params, image_size: ImageSize | None = None) -> Values:
    """Infers fields of `ModelConfig`: name, shape, pooling, positions, head and image size.

    Mean pooling is taken for the form of Google's files, and missing positions for the fixed ones
    of big_vision: see `unshown_fields`. Without a head, `num_classes` is 0.

    Args:
      params: nested by our names; arrays, or anything else with shapes.
      image_size: pixels, a side or (height, width), of the images that the positions belong to.
        It is used only if the positions are not a square grid, or if the model has none: then
        None means 224.

    Raises:
      UserError: the parameters are not those of a known model, or their positions are not a square
        and `image_size` does not fit them.
    """
    flat = {k: tuple(v.shape) for k, v in traverse_util.flatten_dict(params, sep="/").items()}
    classes = _shape(flat, "head/kernel", 2)[1] if "head/kernel" in flat else 0
    has_backbone = any(name.startswith("backbone/") for name in flat)
    if has_backbone and "embedding/kernel" not in flat:
        values = _resnet(flat, image_size)
    elif any(name.startswith("blocks/token_mixing/") for name in flat):
        values = _mixer(flat, image_size)
    elif any(name.startswith(_AXIAL) for name in flat):
        values = _axial_vit(flat, image_size)
    else:
        values = _encoder(flat, image_size)
    return values | {"num_classes": classes}


def unshown_fields(params: Params) -> tuple[str, ...]:
    """The fields that `infer_model` fills in for these parameters without seeing them.

    Without a head nothing tells whether the class token is what it saw, and where there is no class
    token the mean may have been taken or not. Fixed positions are no parameters, whatever their
    formula, and neither are none.
    """
    names = traverse_util.flatten_dict(params, sep="/").keys()
    if not any(name.startswith(("blocks/attention/", _AXIAL)) for name in names):
        return ()
    is_axial = any(name.startswith(_AXIAL) for name in names)
    shows_pooling = is_axial or "pooling/probe" in names or {"cls", "head/kernel"} <= names
    fields = {"pooling": shows_pooling, "positions": not _POSITIONS.keys().isdisjoint(names)}
    return tuple(field for field, is_shown in fields.items() if not is_shown)


def _resnet(flat: _Shapes, image_size: ImageSize | None) -> Values:
    size = _backbone(flat)
    layers, changes = _named_stages(size.stages)
    if f"{_AXIAL_UNIT}/rows/offset_embedding" in flat:
        if size.width_factor != 1:
            changes["width_factor"] = size.width_factor
        shown = _size_of_offsets(flat, image_size)
        return {"name": f"AxialResNet-{layers}", **changes, "image_size": shown}
    prefix = "BiT-" if "backbone/norm/scale" in flat else ""
    name = f"{prefix}R{layers}x{size.width_factor:g}"
    return {"name": name, **changes, "image_size": image_size or 224}


def _size_of_offsets(flat: _Shapes, wanted: ImageSize | None) -> ImageSize:
    """Pixels of an AxialResNet: the given ones if they fit, else the most that fit."""
    height, width = (
        (_shape(flat, f"{_AXIAL_UNIT}/{axis}/offset_embedding", 2)[0] + 1) // 2 * 4
        for axis in ("columns", "rows")
    )
    if wanted is not None:
        sides = (wanted, wanted) if isinstance(wanted, int) else wanted
        if all(most - 4 < side <= most for most, side in zip((height, width), sides, strict=True)):
            return wanted
    return height if height == width else (height, width)


def _mixer(flat: _Shapes, image_size: ImageSize | None) -> Values:
    patch, width = _embedding(flat, 3)
    depth, tokens, token_mlp_dim = _shape(flat, "blocks/token_mixing/dense1/kernel", 3)
    mlp_dim = _shape(flat, "blocks/channel_mixing/dense1/kernel", 3)[2]
    size, changes = _named(MixerSize(depth, width, mlp_dim, token_mlp_dim), MIXER_SIZES)
    return {
        "name": f"Mixer-{size}/{patch}",
        **changes,
        "image_size": _image_size(tokens, patch, image_size),
    }


def _encoder(flat: _Shapes, image_size: ImageSize | None) -> Values:
    """A ViT or hybrid."""
    backbone = _backbone(flat) if "backbone/root/kernel" in flat else None
    patch, width = _embedding(flat, backbone.channels if backbone else 3)
    patch *= backbone.stride if backbone else 1
    size, changes = _named_block(flat, "blocks", width)
    pooling = "token" if "cls" in flat else "gap"
    return {
        **(_named_hybrid(backbone, size, patch) if backbone else {"name": f"ViT-{size}/{patch}"}),
        **changes,
        **_besides_blocks(flat, patch, image_size, backbone.stride if backbone else 1),
        "pooling": "attention" if "pooling/probe" in flat else pooling,
        "registers": _shape(flat, "registers", 3)[1] if "registers" in flat else 0,
    }


def _axial_vit(flat: _Shapes, image_size: ImageSize | None) -> Values:
    patch, width = _embedding(flat, 3)
    size, changes = _named_block(flat, "blocks/rows", width)
    named = {"name": f"AxialViT-{size}/{patch}", **changes}
    return named | _besides_blocks(flat, patch, image_size, 1)


def _named_block(flat: _Shapes, block: str, width: int) -> tuple[str, Values]:
    depth, _, heads, _ = _shape(flat, f"{block}/attention/query/kernel", 4)
    mlp_dim = _shape(flat, f"{block}/mlp/dense1/kernel", 3)[2]
    return _named(Size(depth, width, mlp_dim, heads), SIZES)


def _besides_blocks(flat: _Shapes, patch: int, image_size: ImageSize | None, stride: int) -> Values:
    values: Values = {
        "positions": next((_POSITIONS[path] for path in _POSITIONS if path in flat), "sincos2d"),
        "image_size": _size_shown(flat, patch, image_size, stride),
    }
    if "pre_logits/kernel" in flat:
        values["representation_size"] = _shape(flat, "pre_logits/kernel", 2)[1]
    return values


def _size_shown(flat: _Shapes, patch: int, image_size: ImageSize | None, stride: int) -> ImageSize:
    """Pixels of the images by the positions; the given size, or else 224, where there are none."""
    path = next((path for path in _POSITIONS if path in flat), None)
    if path is None:
        return image_size or 224
    stacked = path.startswith("blocks/")
    if path.endswith("row_embedding"):
        columns = path.replace("row", "column")
        sides = [_shape(flat, name, 2 + stacked)[-2] * patch for name in (path, columns)]
        return sides[0] if sides[0] == sides[1] else (sides[0], sides[1])
    if path.endswith("offset_embedding"):
        positions = (_shape(flat, path, 3)[1] + 1) // 2
    else:
        positions = _shape(flat, path, 3 + stacked)[-2] - ("cls" in flat)
    return _image_size(positions, patch, image_size, stride)


def _named(size: S, sizes: Mapping[str, S]) -> tuple[str, Values]:
    """The name of a size; for an unknown size, the name of the nearest one and the differences."""
    for name, known in sizes.items():
        if known == size:
            return name, {}
    name = min(sizes, key=lambda name: abs(math.log(sizes[name].width / size.width)))
    known = sizes[name]
    return name, {k: v for k, v in size._asdict().items() if v != getattr(known, k)}


def _named_stages(stages: tuple[int, ...]) -> tuple[int, Values]:
    """The number of layers in the name, and the stages if the number does not imply them."""
    for layers, known in RESNET_STAGES.items():
        if known == stages:
            return layers, {}
    return 50, {"stages": stages}


def _named_hybrid(backbone: ResNetSize, size: str, patch: int) -> Values:
    factor = "" if backbone.width_factor == 1 else f"x{backbone.width_factor:g}"
    # A backbone without stages has no factor in its name.
    if not backbone.stages:
        changes = {"width_factor": backbone.width_factor} if factor else {}
        return {"name": f"R+ViT-{size}/{patch // 2}", **changes}
    layers, _ = _named_stages(backbone.stages)
    for known in RESNET_STAGES:
        name = f"R{known}{factor}+ViT-{size}/{patch}"
        if parse_name(name).stages == backbone.stages:
            return {"name": name}
    return {"name": f"R{layers}{factor}+ViT-{size}/{patch}", "stages": backbone.stages}


def _backbone(flat: _Shapes) -> ResNetSize:
    root = _shape(flat, "backbone/root/kernel", 4)
    units: dict[int, int] = {}
    for match in filter(None, map(_UNIT.match, flat)):
        stage, unit = map(int, match.groups())
        units[stage] = max(units.get(stage, 0), unit)
    stages = tuple(units.get(stage, 0) for stage in range(1, max(units, default=0) + 1))
    if 0 in stages:
        raise UserError(
            f"backbone/stage{stages.index(0) + 1} is missing; the file is incomplete, download or "
            "copy it again"
        )
    return ResNetSize(stages, root[3] / 64)


def _embedding(flat: _Shapes, inputs: int) -> tuple[int, int]:
    """Side of a patch, in a hybrid counted in positions of the backbone; and the width."""
    patch, _, channels, width = _shape(flat, "embedding/kernel", 4)
    if flat["embedding/kernel"][1] != patch or channels != inputs:
        raise UserError(
            f"embedding/kernel has the shape {flat['embedding/kernel']}, and not that of "
            f"square patches with {inputs} channels; give the file of a ViT, a hybrid or a Mixer"
        )
    return patch, width


def _shape(flat: _Shapes, name: str, ndim: int) -> tuple[int, ...]:
    shape = flat.get(name)
    if shape is None or len(shape) != ndim:
        problem = "is missing" if shape is None else f"has the shape {shape}"
        raise UserError(
            f"{name} {problem}; give the whole file of a ViT, a hybrid, a ResNet or a Mixer"
        )
    return shape


def _image_size(positions: int, patch: int, wanted: ImageSize | None, stride: int = 1) -> ImageSize:
    """Pixels of the images. A ResNet of this stride before the patches pads, so it rounds up."""
    side = math.isqrt(positions)
    if side * side == positions:
        return side * patch
    if wanted is not None:
        sides = (wanted, wanted) if isinstance(wanted, int) else wanted
        rows, columns = (-(-side // stride) // (patch // stride) for side in sides)
        if rows * columns == positions:
            return wanted
    raise UserError(
        f"the weights hold {positions} positions, which is not a square grid; "
        "give the image size that they were trained on, as in image_size=384x512"
    )
