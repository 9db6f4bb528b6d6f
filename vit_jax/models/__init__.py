"""Models: from a name and options to a callable module. They know no data, mesh or optimizer."""

from typing import Unpack

from vit_jax.models import families
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import make_model
from vit_jax.models.model import Model
from vit_jax.models.options import NewModelOptions
from vit_jax.models.sizes import list_models
from vit_jax.models.vit import ViT
from vit_jax.schema import build, to_dict

__all__ = ["Model", "ModelConfig", "ViT", "create_model", "families", "list_models"]


def create_model(name: str, *, seed: int = 0, **options: Unpack[NewModelOptions]) -> Model:
    """Makes a model with freshly drawn parameters.

    Args:
      name: such as `ViT-B/16`; see `list_models`.
      seed: for drawing the initial parameters.
      **options: fields of `ModelConfig`, such as `image_size=224` and `num_classes=1000`.

    Returns:
      A module that maps float images [batch, height, width, 3] to logits [batch, num_classes].

    Raises:
      UserError: the name is unknown, or options do not fit together.
    """
    config = build(
        ModelConfig, {"num_classes": 1000, **to_dict(options), "name": name}, where="model"
    )
    return make_model(config, seed)
