"""The paper's baseline: ResNets after BiT (arXiv 1912.11370)."""

from typing import Any

from vit_jax.errors import UserError
from vit_jax.models.checks import check_backbone, check_common, check_image_size
from vit_jax.models.config import FAMILIES, INHERIT, Family, ModelConfig
from vit_jax.models.families.backbone import backbone_kept, backbone_macs
from vit_jax.models.resnet import ResNet, parameters
from vit_jax.preprocessing import PreprocessingConfig

# The fields that ResNets and hybrids have.
BACKBONE_KEYS = frozenset({"stages", "width_factor"})


def _defaults(config: ModelConfig) -> dict[str, Any]:
    """As in the authors' code."""
    is_bit = config.activation_order == "pre"
    return {
        "norm_epsilon": 1e-5 if is_bit else 1e-6,
        "preprocessing": PreprocessingConfig(),
        **({"root_pool": "zeros"} if is_bit else {}),
    }


def _check(config: ModelConfig) -> None:
    check_common(config)
    if config.activation_order == "post" and config.root_pool != INHERIT:
        raise UserError(
            f"root_pool would be ignored: only BiT has the choice, and {config.name} pads "
            "as `SAME`; leave it out"
        )
    if config.remat == "dots":
        raise UserError(
            f"remat='dots' would be ignored: {config.name} has convolutions and no matrix "
            "products; use remat='block'"
        )
    check_resnet(config)


def check_resnet(config: ModelConfig) -> None:
    """Checks the shape and the images of a ResNet that stands alone.

    Raises:
      UserError: there is no such ResNet, or its images are too small.
    """
    check_backbone(config)
    assert config.resnet is not None
    if not config.resnet.stages:
        raise UserError("stages must not be empty in a ResNet")
    check_image_size(config)


def backbone_features(config: ModelConfig) -> int:
    """Channels of a ResNet's output."""
    assert config.resnet is not None
    return config.resnet.channels


def backbone_description(config: ModelConfig) -> list[tuple[str, str]]:
    """The line of `describe` about a ResNet."""
    assert config.resnet is not None
    stages, factor = config.resnet
    units = "+".join(map(str, stages)) or "no"
    order = f"{config.activation_order}-activation"
    return [("backbone", f"{units} units, width factor {factor:g}, {order}")]


FAMILIES["resnet"] = Family(
    words="a ResNet",
    keys=BACKBONE_KEYS | {"root_pool"},
    defaults=_defaults,
    check=_check,
    make=ResNet,
    parameters=parameters,
    macs=backbone_macs,
    features=backbone_features,
    kept=backbone_kept,
    description=backbone_description,
)
