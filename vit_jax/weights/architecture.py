"""What a model's parameters show of the model by their names and shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from vit_jax.errors import UserError
from vit_jax.models.sizes import SIZES, Size

ImageSize = int | tuple[int, int]


def read_off(params: Mapping[str, Any], image_size: ImageSize | None = None) -> dict[str, Any]:
    """Values of a `ModelConfig`: name, shape, pooling, positions, layers of the head, image size.

    A mean over patch tokens is taken for Google's, and missing positions for big_vision's fixed
    ones. Without a head, `num_classes` is 0.

    Args:
      params: nested, of arrays or anything with shapes.
      image_size: pixels, of the images that the positions belong to; asked for only where these
        are not a square grid.

    Raises:
      UserError: the parameters are not those of a plain ViT, or their positions are no square and
        `image_size` does not fit them.
    """
    flat = {k: tuple(v.shape) for k, v in traverse_util.flatten_dict(params, sep="/").items()}
    patch, _, channels, width = _shape(flat, "embedding/kernel", 4)
    if flat["embedding/kernel"][1] != patch or channels != 3:
        raise UserError(
            f"embedding/kernel has the shape {flat['embedding/kernel']}, which is not that of "
            "square patches of RGB images; give the file of a plain ViT"
        )
    depth, _, heads, _ = _shape(flat, "blocks/attention/query/kernel", 4)
    size = Size(depth, width, _shape(flat, "blocks/mlp/dense1/kernel", 3)[2], heads)
    pooling = "token" if "cls" in flat else "gap"
    values: dict[str, Any] = {
        **_named(size, patch),
        "pooling": "attention" if "pooling/probe" in flat else pooling,
        "positions": "learned" if "pos_embedding" in flat else "sincos2d",
        "registers": _shape(flat, "registers", 3)[1] if "registers" in flat else 0,
        "num_classes": _shape(flat, "head/kernel", 2)[1] if "head/kernel" in flat else 0,
    }
    if "pre_logits/kernel" in flat:
        values["representation_size"] = _shape(flat, "pre_logits/kernel", 2)[1]
    if "pos_embedding" in flat:
        positions = _shape(flat, "pos_embedding", 3)[1] - ("cls" in flat)
        values["image_size"] = _image_size(positions, patch, image_size)
    else:
        values["image_size"] = image_size or 224
    return values


def _named(size: Size, patch: int) -> dict[str, Any]:
    """The name of a size, or the nearest name with what differs from it."""
    for name, known in SIZES.items():
        if known == size:
            return {"name": f"ViT-{name}/{patch}"}
    name = min(SIZES, key=lambda name: abs(math.log(SIZES[name].width / size.width)))
    known = SIZES[name]
    changes = {k: v for k, v in size._asdict().items() if v != getattr(known, k)}
    return {"name": f"ViT-{name}/{patch}", **changes}


def _shape(flat: Mapping[str, tuple[int, ...]], name: str, ndim: int) -> tuple[int, ...]:
    shape = flat.get(name)
    if shape is None or len(shape) != ndim:
        there = "is missing" if shape is None else f"has the shape {shape}"
        raise UserError(f"{name} {there}: not the file of a plain ViT; give one")
    return shape


def _image_size(positions: int, patch: int, wanted: ImageSize | None) -> ImageSize:
    side = math.isqrt(positions)
    if side * side == positions:
        return side * patch
    if wanted is not None:
        height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
        if (height // patch) * (width // patch) == positions:
            return wanted
    raise UserError(
        f"the weights hold {positions} positions, which is not a square grid; "
        "give the height and width, in pixels, of the images they were trained on"
    )
