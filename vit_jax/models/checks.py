"""What makes a `ModelConfig` impossible, or would be ignored in it."""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import TYPE_CHECKING

from vit_jax.errors import UserError

if TYPE_CHECKING:
    from vit_jax.models.config import ModelConfig

_log = logging.getLogger(__name__)

_FAMILIES = {"vit": "a ViT", "hybrid": "a hybrid", "resnet": "a ResNet", "mixer": "a Mixer"}
# The families that have a key; all have the others.
_FAMILIES_WITH = {
    **dict.fromkeys(
        ("num_heads", "positions", "pooling", "representation_size", "registers", "dropout"),
        ("vit", "hybrid"),
    ),
    "attention": ("vit", "hybrid"),
    **dict.fromkeys(
        ("depth", "width", "mlp_dim", "stochastic_depth", "gelu", "scan"),
        ("vit", "hybrid", "mixer"),
    ),
    "token_mlp_dim": ("mixer",),
    **dict.fromkeys(("stages", "width_factor"), ("hybrid", "resnet")),
}
# Of group normalisation.
_GROUPS = 32
# No model is near it, and memory would be gone before anything could be said.
_DEEPEST, _WIDEST = 2**10, 2**16


def check(config: ModelConfig) -> None:
    """Checks a model's config on its own.

    Raises:
      UserError: values that fit no model, not together, or not this one's family.
    """
    _check_keys(config)
    if config.resnet is not None:
        _check_resnet(config)
    if config.family != "resnet":
        _check_blocks(config)
    _check_image_size(config)
    if config.num_classes is not None and config.num_classes < 0:
        raise UserError(f"num_classes must not be negative, not {config.num_classes}")
    for name in ("dropout", "stochastic_depth"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"{name} must be in [0, 1), not {getattr(config, name)}")
    if config.representation_size is not None and config.representation_size < 1:
        raise UserError(f"representation_size must be positive, not {config.representation_size}")
    if config.attention == "cudnn" and config.dtype == "float32":
        raise UserError("attention='cudnn' needs dtype='bfloat16'")


def _check_keys(config: ModelConfig) -> None:
    family = config.family
    for field in dataclasses.fields(config):
        has_it = family in _FAMILIES_WITH.get(field.name, _FAMILIES)
        if not has_it and getattr(config, field.name) != field.default:
            raise UserError(
                f"{field.name} would be ignored: {config.name} is {_FAMILIES[family]}, which has "
                "none; leave it out"
            )
    if family == "resnet" and config.remat == "dots":
        raise UserError(
            f"remat='dots' would be ignored: {config.name} has no matrix products but "
            "convolutions; use remat='block'"
        )


def _check_resnet(config: ModelConfig) -> None:
    size = config.resnet
    assert size is not None
    if any(units < 1 for units in size.stages):
        raise UserError(f"stages must have a unit each, not {size.stages}")
    if config.family == "resnet" and not size.stages:
        raise UserError("stages must not be empty in a ResNet")
    if size.width_factor <= 0 or 64 * size.width_factor % _GROUPS:
        raise UserError(
            f"width_factor {size.width_factor} gives {64 * size.width_factor:g} channels, which is "
            f"no multiple of the {_GROUPS} groups of the norms; use a multiple of 0.5"
        )
    if config.patch_size % size.stride:
        raise UserError(
            f"{config.name} has a token for {config.patch_size} pixels a side, which is not a "
            f"multiple of the {size.stride} that its {len(size.stages)} stages leave"
        )


def _check_blocks(config: ModelConfig) -> None:
    size = config.mixer_size if config.family == "mixer" else config.size
    for name, value in size._asdict().items():
        largest = _DEEPEST if name == "depth" else _WIDEST
        if not 1 <= value <= largest:
            raise UserError(f"{name} must be from 1 to {largest:,}, not {value}")
    if config.family == "mixer":
        return
    if config.size.width % config.size.num_heads:
        raise UserError(
            f"width {config.size.width} is not a multiple of num_heads {config.size.num_heads}"
        )
    if config.positions == "sincos2d" and config.size.width % 4:
        raise UserError(
            f"positions='sincos2d' needs a multiple of 4 as width, not {config.size.width}"
        )
    if config.registers < 0:
        raise UserError(f"registers must not be negative, not {config.registers}")


def _check_image_size(config: ModelConfig) -> None:
    height, width = config.input_size
    if min(height, width) < 1:
        raise UserError(f"image_size must be positive, not {height}x{width}")
    if min(config.grid) < 1:
        patch = config.patch_size
        raise UserError(
            f"image_size {height}x{width} is below one patch of {config.name} "
            f"({patch}x{patch} pixels); use a larger image_size or a smaller patch"
        )
    short_side = config.preprocessing.short_side if config.preprocessing else None
    if short_side is not None and short_side < min(height, width):
        raise UserError(
            f"preprocessing.short_side {short_side} is below the image_size {height}x{width}, "
            "so that no crop fits; raise it or drop it"
        )
    if config.resnet is None and (height % config.patch_size or width % config.patch_size):
        _notice_floored_grid(height, width, config.patch_size)


@functools.cache
def _notice_floored_grid(height: int, width: int, patch: int) -> None:
    _log.warning(
        "an image of %dx%d pixels is not a whole number of %dx%d patches: the model sees its "
        "upper left %dx%d",
        *(height, width, patch, patch),
        *(height // patch * patch, width // patch * patch),
    )
