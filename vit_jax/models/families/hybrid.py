"""A Vision Transformer on the features of a ResNet (section 3.1)."""

from vit_jax.errors import UserError
from vit_jax.models.checks import check_backbone, check_common, check_encoder, check_image_size
from vit_jax.models.config import FAMILIES, Family, ModelConfig
from vit_jax.models.families.backbone import backbone_kept, backbone_macs
from vit_jax.models.families.resnet import BACKBONE_KEYS, backbone_description
from vit_jax.models.families.vit import (
    ENCODER_KEYS,
    encoder_defaults,
    encoder_description,
    encoder_features,
    encoder_kept,
    encoder_macs,
)
from vit_jax.models.vit import ViT, parameters


def _check(config: ModelConfig) -> None:
    check_common(config)
    check_backbone(config)
    size = config.resnet
    assert size is not None
    if config.patch_size % size.stride:
        raise UserError(
            f"{config.name} has a token for {config.patch_size} pixels a side, which is not a "
            f"multiple of the {size.stride} that its {len(size.stages)} stages leave"
        )
    check_encoder(config)
    check_image_size(config)


def _macs(config: ModelConfig) -> dict[str, int]:
    assert config.resnet is not None
    return backbone_macs(config) | encoder_macs(config, config.resnet.channels)


def _kept(config: ModelConfig) -> dict[str, int]:
    return backbone_kept(config) | encoder_kept(config)


def _description(config: ModelConfig) -> list[tuple[str, str]]:
    return [*backbone_description(config), *encoder_description(config)]


FAMILIES["hybrid"] = Family(
    words="a hybrid",
    keys=ENCODER_KEYS | BACKBONE_KEYS,
    defaults=encoder_defaults,
    check=_check,
    make=ViT,
    parameters=parameters,
    macs=_macs,
    features=encoder_features,
    kept=_kept,
    description=_description,
)
