"""What is timed: the step of a config, or of a model by name, at any image and batch size."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from jax.sharding import Mesh

from vit_jax.config import apply_overrides
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.experiments.sized import open_sized
from vit_jax.experiments.synthetic import ADAMW, CLASSES
from vit_jax.parallel.mesh import make_mesh
from vit_jax.parallel.sharding import BATCH_AXES
from vit_jax.schema import build
from vit_jax.training.choices import complete
from vit_jax.training.config import TrainConfig
from vit_jax.training.devices import check_devices
from vit_jax.training.program import Program, make_program
from vit_jax.training.setup import assemble

_STEPS = 10_000
# The data set of a model without a config; nothing opens it.
_NO_DATA = "synthetic"

Size = int | tuple[int, int]


def values_of(model: str, batch_size: int) -> dict[str, Any]:
    """A config of a model by name: 1,000 classes, AdamW with clipping, images that are made up."""
    return {
        "model": {"name": model, "num_classes": CLASSES},
        "data": {"dataset": _NO_DATA, "batch_size": batch_size},
        "optimizer": dataclasses.asdict(ADAMW),
        "total_steps": _STEPS,
    }


def varied(values: Mapping[str, Any], keys: Mapping[str, Sequence[str]]) -> Iterator["Variant"]:
    """A config with every combination of some keys' values.

    Args:
      keys: values, as they are typed, by keys such as `model.remat`.

    Raises:
      UserError: a key or a value does not exist.
    """
    for chosen in product(*keys.values()):
        pairs = [f"{key}={value}" for key, value in zip(keys, chosen, strict=True)]
        overrides = [f"--config.{pair}" for pair in pairs]
        changed = apply_overrides(copy.deepcopy(dict(values)), overrides)
        yield Variant(" ".join(pairs), build(TrainConfig, complete(changed)))


@dataclass(frozen=True)
class Variant:
    """One config among those that are compared.

    Attributes:
      settings: what it varies, such as `model.remat=dots`; "" if nothing.
    """

    settings: str
    config: TrainConfig


@dataclass
class Workload:
    """A variant on the devices at hand, without weights to start from or data that are missing.

    Raises:
      UserError: the config does not fit the data, or the devices cannot split it.
    """

    variant: Variant
    mesh: Mesh = field(init=False)
    missing: str | None = field(init=False, default=None)
    _source: Source | None = field(init=False, default=None)
    _programs: dict[Size, Program] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        config = self.variant.config
        self.mesh = make_mesh(config.mesh)
        if config.data.dataset == _NO_DATA:
            self._config = config
            return
        self._config, self._source, self.missing, _ = open_sized(config)

    @property
    def unit(self) -> int:
        """What a batch size must be a multiple of."""
        split = [self.mesh.shape[axis] for axis in BATCH_AXES]
        return split[0] * split[1] * self._config.optimizer.micro_batches

    def program(self, image_size: Size, batch_size: int) -> Program:
        """The training step at a size.

        Args:
          image_size: in pixels, a side or (height, width).
          batch_size: images of a step over all devices.

        Raises:
          UserError: the model does not take such images, or the devices cannot split the batch.
        """
        data = dataclasses.replace(self._config.data, batch_size=batch_size)
        if image_size not in self._programs:
            self._programs[image_size] = self._assemble(image_size)
        made = self._programs[image_size]
        config = dataclasses.replace(made.config, data=data)
        check_devices(config, self.mesh)
        return dataclasses.replace(made, config=config)

    def _assemble(self, image_size: Size) -> Program:
        model = dataclasses.replace(self._config.model, image_size=image_size)
        config = dataclasses.replace(self._config, model=model)
        if self._source is None:
            if config.model.num_classes is None:
                raise UserError("config.model.num_classes: none would follow data; name a number")
            config = dataclasses.replace(config, model=model.completed())
            return make_program(config, _STEPS, self.mesh)
        return assemble(config, self.mesh, self._source).program
