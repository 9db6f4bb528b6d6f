"""A config with a loss of your own: the focal loss, in which sure examples count less.

python -m vit_jax train --config=examples/own_objective.py --workdir=runs/own_objective

With p the share of the right class it is (1 - p) ** gamma * -log(p) (arXiv 1708.02002, 3.2).
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from vit_jax.config import load_config
from vit_jax.training.objectives import Batch, ObjectiveConfig, ObjectiveContext
from vit_jax.training.supervised import Supervised


@ObjectiveConfig.kinds.register("focal")
@dataclass(frozen=True)
class FocalConfig(ObjectiveConfig):
    """`--config.objective.kind=focal` asks for it."""

    learns_labels = False  # So that smoothing and mixing, which it leaves out, are refused.
    gamma: float = 2.0
    """How much less sure examples count. 0: cross-entropy."""

    def make(self, context: ObjectiveContext) -> "Focal":
        """The objective, for one model on one mesh."""
        focal = Focal(context.model, context.placement, flip=context.data.flip)
        focal.gamma = self.gamma
        return focal


class Focal(Supervised):
    """Takes all but the loss from the objective that learns classes."""

    gamma: float

    def label_losses(self, logits: Array, batch: Batch) -> Array:
        """The loss of each example, from its cross-entropy -log(p)."""
        losses = super().label_losses(logits, batch)
        return (1 - jnp.exp(-losses)) ** self.gamma * losses


def get_config(argument: str | None = None) -> ConfigDict:
    config = load_config("configs/quickstart.py")
    config["objective"] = {"kind": "focal"}
    return ConfigDict(config)
