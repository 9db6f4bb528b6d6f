"""What a run learns: the protocol of objectives, and their configs by kind.

A new kind is one file: a config dataclass that is registered with `ObjectiveConfig.kinds`, and the
objective that it makes. `training/supervised.py` is the one that learns classes from labels.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from jax import Array

from vit_jax.data.config import DataConfig
from vit_jax.kinds import Kinds
from vit_jax.losses import Loss
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params
from vit_jax.models.placement import Placement
from vit_jax.parameters import Table

# Arrays whose first axis is the batch: `images`, `labels`, `weights`, and what `prepare` adds.
Batch = dict[str, Array]

# The key in the run's parameters under which an objective's own parameters lie. No model uses it.
OWN = "objective"


def split_params(params: Params) -> tuple[Params, Params]:
    """The model's parameters, and the objective's own ({} if it has none)."""
    model = {name: value for name, value in params.items() if name != OWN}
    return model, params.get(OWN, {})


class Examples(NamedTuple):
    """What an objective says of each example of a batch; all arrays are float32 [rows].

    Attributes:
      losses: may hold any number, NaN included, where the count is 0.
      metrics: further numbers to report, by name. The run logs their means as `train/NAME`.
      counts: how much an example counts in the means: 0 leaves it out.
    """

    losses: Array
    metrics: dict[str, Array]
    counts: Array


class Objective(Protocol):
    """What happens to a batch on the devices, and the loss that training lowers.

    An objective has no mutable state: what it learns are parameters, and what it only reads are
    fixed arrays.
    """

    parameters: Table
    """Describes its own parameters by their paths; empty if it has none.

    Fixed arrays are described here too, unless they have the paths of the run's model.
    """

    fixed: Any
    """A tree of arrays that the step reads and never changes, such as a teacher's parameters.

    They may be arrays that are read from a file when they are needed. `()` if there are none.
    """

    fixed_digest: str | None
    """Identifies `fixed`: a run resumes only with the same one. None if there is nothing fixed."""

    def init(self, key: Array) -> Params:
        """Fresh parameters of its own, as `parameters` lists them; {} if it has none."""

    def prepare(self, batch: Batch, keys: tuple[Array, Array]) -> Batch:
        """Changes the whole batch before it is split into micro-batches: flips, mixes, masks.

        Args:
          batch: images uint8 [rows, height, width, 3], labels int32 [rows] or [rows, labels], -1
            where there is none, and weights float32 [rows], 0 where no image could be read.
          keys: two keys of this step, the same for any mesh and any number of micro-batches.

        Returns:
          Arrays whose first axis is the batch.
        """

    def losses(self, params: Params, fixed: Any, batch: Batch, key: Array) -> Examples:
        """The loss and the metrics of each example of a micro-batch.

        Args:
          params: the model's parameters and, under "objective", its own if it has any.
          fixed: as `fixed`, on the devices.
          batch: rows of what `prepare` returned.
          key: of dropout and the like; another one for each step and micro-batch.
        """


@dataclass(frozen=True)
class ObjectiveContext:
    """What an objective is made for.

    Attributes:
      model: completed, so that no key is left open.
      placement: keeps activations where they belong on the run's mesh.
      loss: how a model's scores are compared with labels.
      label_smoothing: of the labels, in [0, 1).
      class_weights: how much the loss of an example of each class counts, over all classes of the
        model; None if all count alike.
      data: `flip`, `mixup` and `cutmix` are the objective's affair, since they happen on devices.
    """

    model: ModelConfig
    placement: Placement
    loss: Loss
    label_smoothing: float
    data: DataConfig
    class_weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ObjectiveConfig:
    """The `objective` section of a config; its key `kind` chooses a registered subclass.

    Attributes:
      learns_labels: whether this kind reads `label_smoothing`, `loss_weights`, `data.mixup` and
        `data.cutmix`. If it does not, a config that sets them is an error.
    """

    kinds: ClassVar[Kinds["ObjectiveConfig"]] = Kinds("objective", default="supervised")
    kind: ClassVar[str]
    learns_labels: ClassVar[bool] = True

    def make(self, context: ObjectiveContext) -> Objective:
        """The objective, for one model on one mesh.

        Raises:
          UserError: the objective cannot be had with this model or these files.
        """
        raise NotImplementedError
