"""AxialResNet (appendix D.6)."""

import math
from typing import Any

from vit_jax.errors import UserError
from vit_jax.models.axial_resnet import HEADS, AxialResNet, parameters
from vit_jax.models.checks import check_common
from vit_jax.models.config import FAMILIES, Family, ModelConfig
from vit_jax.models.families.backbone import Sides, backbone_kept, backbone_macs
from vit_jax.models.families.resnet import (
    BACKBONE_KEYS,
    backbone_description,
    backbone_features,
    check_resnet,
)
from vit_jax.preprocessing import PreprocessingConfig


def _defaults(config: ModelConfig) -> dict[str, Any]:
    """As in Scenic's code."""
    del config
    return {"norm_epsilon": 1e-4, "preprocessing": PreprocessingConfig()}


def _check(config: ModelConfig) -> None:
    check_common(config)
    if config.remat == "dots":
        raise UserError(
            f"remat='dots' would be ignored: {config.name} keeps whole units; use remat='block'"
        )
    check_resnet(config)


def _attention_macs(sides: Sides, width: int) -> int:
    """Along both axes: the projection; three products of half the width, and two of all of it."""
    return math.prod(sides) * (2 * 2 * width**2 + sum(sides) * (3 * width // 2 + 2 * width))


def _attention_kept(sides: Sides, width: int) -> int:
    """Along both axes the inputs and outputs of two norms, except the last output; weights."""
    return math.prod(sides) * (11 * width + HEADS * sum(sides))


def _macs(config: ModelConfig) -> dict[str, int]:
    return backbone_macs(config, _attention_macs)


def _kept(config: ModelConfig) -> dict[str, int]:
    return backbone_kept(config, _attention_kept)


def _description(config: ModelConfig) -> list[tuple[str, str]]:
    attention = ("attention", f"along columns, then rows; {HEADS} heads, relative positions")
    return [*backbone_description(config), attention]


FAMILIES["axial_resnet"] = Family(
    words="an AxialResNet",
    keys=BACKBONE_KEYS,
    defaults=_defaults,
    check=_check,
    make=AxialResNet,
    parameters=parameters,
    macs=_macs,
    features=backbone_features,
    kept=_kept,
    description=_description,
)
