"""The axial Vision Transformer (appendix D.6)."""

from typing import Any

from vit_jax.errors import UserError
from vit_jax.models.axial import AxialViT, parameters
from vit_jax.models.checks import check_common, check_encoder, check_image_size
from vit_jax.models.config import FAMILIES, Family, ModelConfig
from vit_jax.models.families.vit import (
    ENCODER_KEYS,
    embedding_macs,
    encoder_defaults,
    encoder_features,
)
from vit_jax.models.positions import Positions, scheme

# What a position scheme may do within a block. An axial block is two of a ViT's.
_WITHIN = ("layer_parameters", "on_layer", "pairs")


def _defaults(config: ModelConfig) -> dict[str, Any]:
    defaults = encoder_defaults(config)
    return {key: value for key, value in defaults.items() if key != "pooling"}


def _check(config: ModelConfig) -> None:
    check_common(config)
    check_encoder(config)
    if config.attention != "xla":
        raise UserError(
            f"attention={config.attention!r} is a kernel for long sequences, and {config.name} "
            "attends along one row or column at a time; use attention='xla'"
        )
    if any(getattr(type(scheme(config)), name) is not getattr(Positions, name) for name in _WITHIN):
        raise UserError(
            f"positions={config.positions!r} acts within each block of a ViT, and {config.name} "
            "has a block for rows and one for columns; use learned, learned2d, one of the two "
            "with _shared, sincos2d or none"
        )
    check_image_size(config)


def _macs(config: ModelConfig) -> dict[str, int]:
    """Two blocks of a ViT whose scores are those of tokens in one row, and in one column."""
    depth, width, mlp_dim, _ = config.size
    tokens = config.sequence_length
    products = 8 * width**2 + 4 * width * mlp_dim + 2 * width * sum(config.grid)
    macs = {"embedding": embedding_macs(config, 3), "blocks": depth * tokens * products}
    if config.representation_size is not None:
        macs["pre_logits"] = width * config.representation_size
    return macs


def _kept(config: ModelConfig) -> dict[str, int]:
    """As two blocks of a ViT."""
    tokens = config.sequence_length
    _, width, mlp_dim, heads = config.size
    if config.remat == "block":
        return {"blocks": tokens * width}
    if config.remat == "dots":
        # As a ViT's, and the output of the first MLP: the second block's input needs it.
        return {"blocks": tokens * (10 * width + 2 * mlp_dim)}
    return {"blocks": tokens * (12 * width + 2 * mlp_dim + 4 * heads)}


def _description(config: ModelConfig) -> list[tuple[str, str]]:
    depth, width, mlp_dim, heads = config.size
    what = f"{depth} pairs of blocks, along rows and along columns"
    return [("encoder", f"{what}, width {width}, MLP {mlp_dim}, {heads} heads")]


FAMILIES["axial_vit"] = Family(
    words="an axial ViT",
    keys=ENCODER_KEYS - {"pooling", "registers"},
    defaults=_defaults,
    check=_check,
    make=AxialViT,
    parameters=parameters,
    macs=_macs,
    features=encoder_features,
    kept=_kept,
    description=_description,
)
