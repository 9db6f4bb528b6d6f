"""Checks of a `ModelConfig` that the families share."""

import dataclasses
import functools
import logging

from vit_jax.errors import UserError
from vit_jax.image_size import format_size
from vit_jax.models.config import FAMILIES, ModelConfig, family_of
from vit_jax.models.positions import scheme

_log = logging.getLogger(__name__)

# Each stage but the first halves the sides and doubles the channels.
_MOST_STAGES = 8
# The groups of a ResNet's norms.
_GROUPS = 32
# No model comes near. Beyond them, memory would run out before any message.
_DEEPEST, _WIDEST, _LARGEST_SIDE = 2**10, 2**16, 2**14
# Below it float32 has no normal numbers, and what is constant becomes NaN.
_LEAST_EPSILON = 1e-30


def check_common(config: ModelConfig) -> None:
    """Checks what every family has.

    Raises:
      UserError: a value is impossible, would be ignored, or does not fit another value.
    """
    _check_keys(config)
    if config.num_classes is not None and config.num_classes < 0:
        raise UserError(f"num_classes must not be negative, not {config.num_classes}")
    epsilon = config.norm_epsilon
    if epsilon is not None and not _LEAST_EPSILON <= epsilon <= 1:
        raise UserError(f"norm_epsilon must be from {_LEAST_EPSILON:g} to 1, not {epsilon}")


def check_blocks(config: ModelConfig) -> None:
    """Checks the shape of a model's blocks.

    Raises:
      UserError: a number is out of range.
    """
    assert config.blocks is not None
    for name, value in config.blocks._asdict().items():
        largest = _DEEPEST if name == "depth" else _WIDEST
        if not 1 <= value <= largest:
            raise UserError(f"{name} must be from 1 to {largest:,}, not {value}")
    check_share(config, "stochastic_depth")


def check_encoder(config: ModelConfig) -> None:
    """Checks what ViTs and hybrids have.

    Raises:
      UserError: a value is out of range or does not fit another value.
    """
    check_blocks(config)
    if config.size.width % config.size.num_heads:
        raise UserError(
            f"width {config.size.width} is not a multiple of num_heads {config.size.num_heads}"
        )
    scheme(config).check(config)
    if not 0 <= config.registers <= _WIDEST:
        raise UserError(f"registers must be from 0 to {_WIDEST:,}, not {config.registers}")
    if config.representation_size is not None and not 1 <= config.representation_size <= _WIDEST:
        raise UserError(
            f"representation_size must be from 1 to {_WIDEST:,}, not {config.representation_size}"
        )
    if config.attention == "cudnn" and config.dtype == "float32":
        raise UserError("attention='cudnn' needs dtype='bfloat16'")
    check_share(config, "dropout")


def check_share(config: ModelConfig, name: str) -> None:
    """Checks a field that is a probability below 1.

    Raises:
      UserError: it is not.
    """
    if not 0 <= getattr(config, name) < 1:
        raise UserError(f"{name} must be in [0, 1), not {getattr(config, name)}")


def check_backbone(config: ModelConfig) -> None:
    """Checks the shape of a ResNet or of a hybrid's ResNet.

    Raises:
      UserError: there is no such ResNet.
    """
    size = config.resnet
    assert size is not None
    if any(units < 1 for units in size.stages):
        raise UserError(f"stages must each have at least one unit, not {size.stages}")
    if sum(size.stages) > _DEEPEST or len(size.stages) > _MOST_STAGES:
        raise UserError(
            f"stages must be at most {_MOST_STAGES} with {_DEEPEST} units in all, not {size.stages}"
        )
    if 64 * size.width_factor > _WIDEST:
        raise UserError(f"width_factor must be at most {_WIDEST // 64}, not {size.width_factor:g}")
    if size.width_factor <= 0 or 64 * size.width_factor % _GROUPS:
        raise UserError(
            f"width_factor {size.width_factor} gives {64 * size.width_factor:g} channels, which is "
            f"not a multiple of the {_GROUPS} groups of the norms; use a multiple of 0.5"
        )


def _check_keys(config: ModelConfig) -> None:
    """Refuses keys that the family lacks. A key that no family lists belongs to all."""
    family = family_of(config)
    listed = frozenset[str]().union(*(other.keys for other in FAMILIES.values()))
    for field in dataclasses.fields(config):
        is_missing = field.name in listed and field.name not in family.keys
        if is_missing and getattr(config, field.name) != field.default:
            raise UserError(
                f"{field.name} would be ignored: {config.name} is {family.words}, which has none; "
                "leave it out"
            )


def check_image_size(config: ModelConfig) -> None:
    """Checks the input's size against the patches and the preprocessing.

    Raises:
      UserError: no patch or no crop fits.
    """
    height, width = config.input_size
    size = format_size((height, width))
    if min(height, width) < 1:
        raise UserError(f"image_size must be positive, not {size}")
    if max(height, width) > _LARGEST_SIDE:
        raise UserError(f"image_size must be at most {_LARGEST_SIDE} a side, not {size}")
    if min(config.grid) < 1:
        patch = config.patch_size
        raise UserError(
            f"image_size {size} is below one patch of {config.name} "
            f"({patch}x{patch} pixels); use a larger image_size or a smaller patch"
        )
    short_side = config.preprocessing.short_side if config.preprocessing else None
    if short_side is not None and short_side < min(height, width):
        raise UserError(
            f"preprocessing.short_side {short_side} is below the image_size {size}, "
            "so no crop fits; raise it or leave it out"
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
