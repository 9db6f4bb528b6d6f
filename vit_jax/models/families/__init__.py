"""The families of models, a record in one file each; importing this registers them."""

from vit_jax.models.config import ModelConfig, family_of
from vit_jax.models.families import axial_resnet, axial_vit, hybrid, mixer, resnet, vit
from vit_jax.parameters import Table

__all__ = ["axial_resnet", "axial_vit", "hybrid", "mixer", "parameter_table", "resnet", "vit"]


def parameter_table(config: ModelConfig) -> Table:
    """Describes each parameter of a model by its path.

    Args:
      config: fields that are left open are completed by the family's defaults.
    """
    config = config.completed()
    return family_of(config).parameters(config)
