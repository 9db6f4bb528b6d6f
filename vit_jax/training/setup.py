"""From a config to everything that a run is made of, and every mistake found before it starts."""

import dataclasses
import logging
from dataclasses import dataclass

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding

from vit_jax.data.records import Source
from vit_jax.data.sources import open_source
from vit_jax.errors import UserError
from vit_jax.evaluation.classification import Classification
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params
from vit_jax.parallel.mesh import make_mesh
from vit_jax.parallel.sharding import BATCH_AXES, state_shardings
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.training.config import TrainConfig
from vit_jax.training.optimizer import make_optimizer, make_schedule
from vit_jax.weights.load import load_params

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """A checked config and what it stands for.

    Attributes:
      config: with the model's classes and preprocessing filled in.
      preprocessing: the model's.
      initial: parameters read from `init_from`, or None for fresh ones.
    """

    config: TrainConfig
    preprocessing: PreprocessingConfig
    mesh: Mesh
    source: Source
    total_steps: int
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    initial: Params | None

    @property
    def model(self) -> ModelConfig:
        """With its classes and preprocessing known."""
        return self.config.model


def prepare(config: TrainConfig, weights: str | None = None) -> Setup:
    """Opens the data, reads the weights and makes mesh and optimizer.

    Args:
      weights: read in the place of `config.init_from`.

    Raises:
      UserError: anything in the config that does not fit the data, the weights or the devices.
    """
    mesh = make_mesh(config.mesh)
    _check_batch(config, mesh)
    data = config.data
    source = open_source(
        data.dataset, data.train, data_dir=data.data_dir, test_fraction=data.test_fraction
    )
    total_steps = config.steps(len(source))
    schedule = make_schedule(config.optimizer, total_steps)
    model = _with_classes(config.model, source)
    initial = None
    if weights := weights or config.init_from:
        initial, model = load_params(weights, model)
    preprocessing = model.preprocessing or PreprocessingConfig()
    if initial is not None and model.preprocessing is None:
        _log.info("%s says nothing of preprocessing; assuming %s", weights, preprocessing)
    model = dataclasses.replace(model, preprocessing=preprocessing)
    return Setup(
        config=dataclasses.replace(config, model=model),
        preprocessing=preprocessing,
        mesh=mesh,
        source=source,
        total_steps=total_steps,
        schedule=schedule,
        optimizer=make_optimizer(config.optimizer, schedule),
        initial=initial,
    )


def place_params(setup: Setup) -> Params:
    """The parameters that were read, on the mesh; each process gives its devices their parts."""
    shardings = state_shardings(setup.initial, setup.mesh)

    def place(array: np.ndarray, sharding: NamedSharding) -> Array:
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, setup.initial, shardings)


def make_evaluations(setup: Setup) -> dict[str, Classification]:
    """The config's evaluations by name.

    Raises:
      UserError: a data set is not there, or has other classes than the training data.
    """
    data = setup.config.data
    evaluations = {}
    for name, config in setup.config.evals.items():
        dataset = config.dataset or data.dataset
        source = open_source(
            dataset,
            config.split,
            data_dir=data.data_dir,
            test_fraction=data.test_fraction if dataset == data.dataset else None,
        )
        if source.class_names != setup.source.class_names:
            raise UserError(
                f"config.evals.{name}: {source.name} has other classes than {setup.source.name}; "
                "evaluate on a data set with the same classes in the same order"
            )
        evaluations[name] = Classification(
            setup.model,
            setup.preprocessing,
            source,
            setup.mesh,
            batch_size=data.batch_size,
            loss=setup.config.loss,
            workers=data.workers,
            on_error=data.on_error,
        )
    return evaluations


def _check_batch(config: TrainConfig, mesh: Mesh) -> None:
    parts = [mesh.shape[axis] for axis in BATCH_AXES]
    devices, micro_batches = parts[0] * parts[1], config.optimizer.micro_batches
    if config.data.batch_size % (devices * micro_batches):
        raise UserError(
            f"config.data.batch_size: {config.data.batch_size} is not a multiple of "
            f"{devices * micro_batches}, which is {devices} devices (of {jax.device_count()}) "
            f"that split the batch, times {micro_batches} micro-batches"
        )


def _with_classes(model: ModelConfig, source: Source) -> ModelConfig:
    classes = len(source.class_names)
    if model.num_classes is None:
        return dataclasses.replace(model, num_classes=classes)
    if model.num_classes < classes:
        raise UserError(
            f"config.model.num_classes: {model.num_classes} is below the {classes} classes of "
            f"{source.name}; raise it, or leave it out to follow the data"
        )
    return model
