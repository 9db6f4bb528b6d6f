"""The families of models, and what each of them says about itself."""

from collections.abc import Callable

from vit_jax.models import mixer, resnet, vit
from vit_jax.models.config import ModelConfig
from vit_jax.models.sizes import Family
from vit_jax.parameters import Table

_TABLES: dict[Family, Callable[[ModelConfig], Table]] = {
    "vit": vit.parameters,
    "hybrid": vit.parameters,
    "resnet": resnet.parameters,
    "mixer": mixer.parameters,
}


def parameter_table(config: ModelConfig) -> Table:
    """Describes each parameter of a model by its path.

    Args:
      config: what it leaves open is as `following` says.
    """
    config = config.following()
    return _TABLES[config.family](config)
