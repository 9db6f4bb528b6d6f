"""From a config to everything that a run is made of, and every mistake found before it starts."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding

from vit_jax.data.config import DataConfig
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Source
from vit_jax.data.sources.subset import Subset
from vit_jax.errors import UserError
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import EvalContext, Opener
from vit_jax.evaluation.opening import Evaluations, open_evaluations
from vit_jax.models.config import ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import Params
from vit_jax.parallel.mesh import make_mesh
from vit_jax.parallel.sharding import state_shardings
from vit_jax.parameters import Table
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.devices import check_devices
from vit_jax.training.program import Program, make_program
from vit_jax.weights.catalogue.names import resolve
from vit_jax.weights.files import open_weights
from vit_jax.weights.load import params_for
from vit_jax.weights.stored import AnyArray


@dataclass(frozen=True)
class Setup:
    """A checked config and what it stands for.

    Attributes:
      config: with nothing of the model left open.
      preprocessing: the model's.
      initial: gives the parameters to start from, to be read yet; None for fresh ones.
    """

    config: TrainConfig
    preprocessing: PreprocessingConfig
    mesh: Mesh
    source: Source
    total_steps: int
    program: Program
    initial: Callable[[], Params] | None

    @property
    def model(self) -> ModelConfig:
        """With nothing left open."""
        return self.config.model


def prepare(
    config: TrainConfig, *, started: Mapping[str, Any] | None = None, keep_head: bool = False
) -> Setup:
    """Opens the data and the weights to start from, and makes mesh and optimizer.

    Args:
      started: the saved config of this run, if it has a state to go on from: then the weights that
          it started from may be gone.
      keep_head: whether weights with another head are an error, as in evaluation.

    Raises:
      UserError: anything in the config that does not fit the data, the weights or the devices.
    """
    mesh = make_mesh(config.mesh)
    check_devices(config, mesh)
    return assemble(config, mesh, open_training(config.data), started=started, keep_head=keep_head)


def open_training(data: DataConfig) -> Source:
    """The training data, or the subset of it that the config asks for.

    Raises:
      NoDataError: it is not there.
      UserError: it is not as the config says.
    """
    source = open_source(
        data.dataset,
        data.train,
        data_dir=data.data_dir,
        test_fraction=data.test_fraction,
        label=data.label,
        max_labels=data.max_labels,
    )
    return part_for_training(data, source)


def part_for_training(data: DataConfig, source: Source) -> Source:
    """The subset that the config asks for, if it does.

    Raises:
      UserError: there are fewer records, or `max_labels` would be ignored.
    """
    if data.max_labels is not None and source.max_labels is None:
        raise UserError(
            f"config.data.max_labels would be ignored: records of {source.name} have one label; "
            "leave it out"
        )
    return source if data.subset is None else Subset(source, data.subset, data.subset_seed)


def assemble(
    config: TrainConfig,
    mesh: Mesh,
    source: Source,
    *,
    started: Mapping[str, Any] | None = None,
    keep_head: bool = False,
) -> Setup:
    """As `prepare`, with devices and data that are given."""
    total_steps = config.steps(len(source))
    _check_early_stop(config, total_steps)
    model = _with_classes(config.model, source)
    initial = None
    if config.init_from is not None and started is None:
        params, model = _open_initial(config, model, keep_head=keep_head)
        initial = lambda: params  # noqa: E731 (the other one opens the file)
    elif config.init_from is not None:
        assert started is not None
        model = model.following(build(ModelConfig, started["model"], "model"))
        initial = lambda: _open_initial(config, model)[0]  # noqa: E731
    model = model.following()
    assert model.preprocessing is not None
    config = dataclasses.replace(config, model=model)
    return Setup(
        config=config,
        preprocessing=model.preprocessing,
        mesh=mesh,
        source=source,
        total_steps=total_steps,
        program=make_program(config, total_steps, mesh, source.max_labels),
        initial=initial,
    )


def place_initial(setup: Setup) -> Params:
    """Reads the parameters to start from onto the mesh."""
    assert setup.initial is not None
    return place(setup.initial(), parameter_table(setup.model), setup.mesh)


def place(params: Params, table: Table, mesh: Mesh) -> Params:
    """Reads stored parameters onto a mesh; each process gives its devices' parts."""

    def read(stored: AnyArray, sharding: NamedSharding) -> Array:
        array = np.asarray(stored)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(read, params, state_shardings(params, table, mesh))


def open_evaluation(data: DataConfig, config: EvalConfig) -> Source:
    """The data of one evaluation; what it leaves open is as in training.

    Raises:
      NoDataError: the data set is missing.
      UserError: it is not as the config says.
    """
    context = EvalContext.of_run(data, class_names=None, loss="softmax", batch_size=None)
    return Opener("", ModelConfig(), context).source(config.split, config.dataset)


def make_evaluations(setup: Setup) -> Evaluations:
    """Opens the config's evaluations.

    Raises:
      UserError: a data set is missing, or its classes are not the training data's.
    """
    data = setup.config.data
    return open_evaluations(
        setup.config.evals,
        model=setup.model,
        mesh=setup.mesh,
        context=EvalContext.of_run(
            data,
            class_names=setup.source.class_names,
            loss=setup.config.loss,
            batch_size=data.batch_size // setup.config.optimizer.micro_batches,
        ),
    )


def _open_initial(
    config: TrainConfig, model: ModelConfig, *, keep_head: bool = False
) -> tuple[Params, ModelConfig]:
    assert config.init_from is not None
    weights = open_weights(resolve(config.init_from), model.image_size)
    return params_for(weights, model, config.position_resize, keep_head=keep_head)


def _check_early_stop(config: TrainConfig, total_steps: int) -> None:
    if config.early_stop is None:
        return
    name = config.early_stop.eval
    every_steps = config.evals[name].every_steps
    if every_steps is not None and every_steps >= total_steps:
        raise UserError(
            f"config.early_stop would be ignored: evals.{name} comes every {every_steps} steps, so "
            f"after the last of {total_steps} only; lower its every_steps"
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
