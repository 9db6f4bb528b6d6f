"""From a config to everything that a run is made of; finds mistakes before the run starts."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from vit_jax.data.batches import Chunks
from vit_jax.data.config import DataConfig
from vit_jax.data.images.transforms import make_transform
from vit_jax.data.loader import Loader, local_rows
from vit_jax.data.order import records_by_class
from vit_jax.data.sources.labels import balanced_weights, class_counts, refuse_several_labels
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Source, reads_pieces
from vit_jax.data.sources.subset import Subset
from vit_jax.errors import UserError
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import EvalContext, Opener
from vit_jax.evaluation.heads import with_head_for
from vit_jax.evaluation.opening import Evaluations, open_evaluations
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params
from vit_jax.parallel.mesh import make_mesh
from vit_jax.parallel.sharding import batch_sharding
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.devices import check_devices
from vit_jax.training.program import Program, make_program
from vit_jax.weights.catalogue.names import resolve
from vit_jax.weights.files import open_weights
from vit_jax.weights.load import params_for
from vit_jax.weights.placing import place


@dataclass(frozen=True)
class Setup:
    """A checked config and what it stands for.

    Attributes:
      config: whose model section is completed.
      initial: the parameters to start from, which are still in their file. None for random ones,
        and for a run that resumes: then their file may be missing.
    """

    config: TrainConfig
    mesh: Mesh
    source: Source
    total_steps: int
    program: Program
    initial: Params | None

    @property
    def model(self) -> ModelConfig:
        """The model's config, completed, so that no key is left open."""
        return self.config.model

    @property
    def preprocessing(self) -> PreprocessingConfig:
        """The model's preprocessing."""
        assert self.model.preprocessing is not None
        return self.model.preprocessing


def prepare(
    config: TrainConfig, *, started: Mapping[str, Any] | None = None, extended_to: int | None = None
) -> Setup:
    """Opens the data and the weights to start from, and makes the mesh and the program.

    Args:
      started: the saved config of this run, if it has a checkpoint to resume from.
      extended_to: steps of the run, in place of those that the config says.

    Raises:
      UserError: something in the config does not fit the data, the weights or the devices.
    """
    mesh = make_mesh(config.mesh)
    check_devices(config, mesh)
    return assemble(
        config, mesh, open_training(config.data), started=started, extended_to=extended_to
    )


def open_training(data: DataConfig) -> Source:
    """The training data, or the subset of it that the config asks for.

    Raises:
      NoDataError: the data set is missing.
      UserError: it is not as the config says.
    """
    source = open_source(
        data.dataset,
        data.train,
        data_dir=data.data_dir,
        test_fraction=data.test_fraction,
        label=data.label,
        max_labels=data.max_labels,
        cache=data.cache(),
    )
    if data.cache_dir is not None and not reads_pieces(source):
        raise UserError(
            f"config.data.cache_dir would be ignored: {source.name} is not read in pieces of "
            "shards; leave it out"
        )
    return part_for_training(data, source)


def part_for_training(data: DataConfig, source: Source) -> Source:
    """The subset that the config asks for, otherwise the whole source.

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
    extended_to: int | None = None,
) -> Setup:
    """As `prepare`, on a mesh and data that are given."""
    total_steps = config.steps(len(source)) if extended_to is None else extended_to
    _check_early_stop(config, total_steps)
    _check_classes(config, source)
    model, initial = _with_classes(config, source), None
    if config.init_from is not None and started is None:
        initial, model = _open_initial(config, model, source)
    elif config.init_from is not None:
        assert started is not None
        model = model.completed(build(ModelConfig, started["model"], "model"))
    config = dataclasses.replace(config, model=model.completed())
    weights = _class_weights(config, source)
    program = make_program(config, total_steps, mesh, source.max_labels, weights)
    return Setup(config, mesh, source, total_steps, program, initial)


def _class_weights(config: TrainConfig, source: Source) -> tuple[float, ...] | None:
    """The factors of `loss_weights`, over all classes of the model.

    Raises:
      UserError: records have several labels.
    """
    if config.loss_weights is None:
        return None
    refuse_several_labels(source, "config.loss_weights")
    weights = balanced_weights(class_counts(source)).tolist()
    more = (config.model.num_classes or len(weights)) - len(weights)
    return (*weights, *[1.0] * more)


def initial_params(setup: Setup) -> Params | None:
    """Reads the parameters to start from onto the mesh; None for random ones.

    Raises:
      UserError: the weights in `init_from` are missing, damaged or of another model.
    """
    config, stored = setup.config, setup.initial
    if config.init_from is None:
        return None
    if stored is None:
        stored, _ = _open_initial(config, config.model, setup.source)
    return place(stored, setup.program.model_params)


def make_chunks(setup: Setup) -> Chunks:
    """What the workers make of the training data."""
    config, size = setup.config.data, setup.model.input_size
    return Chunks(
        setup.source,
        make_transform(size, setup.preprocessing, config),
        size=size,
        rows=local_rows(config.batch_size, batch_sharding(setup.mesh)),
        batch_size=config.batch_size,
        seed=setup.config.seed,
        shuffle=True,
        classes=None if config.sampling == "shuffled" else _records_by_class(setup.source),
    )


def _records_by_class(source: Source) -> tuple[np.ndarray, ...]:
    refuse_several_labels(source, "config.data.sampling='balanced'")
    return records_by_class(source)


def make_loader(setup: Setup, start: int) -> Loader:
    """Batches of the steps after `start`, to the last one of the run."""
    config = setup.config.data
    return Loader(
        make_chunks(setup),
        batch_sharding(setup.mesh),
        start=start,
        stop=setup.total_steps,
        workers=config.workers,
        on_error=config.on_error,
    )


def open_evaluation(data: DataConfig, config: EvalConfig) -> Source:
    """The data of one evaluation; what it leaves open is as in training.

    Raises:
      NoDataError: the data set is missing.
      UserError: it is not as the config says.
    """
    context = EvalContext.of_run(data, class_names=None, loss="softmax", batch_size=None)
    return Opener("", ModelConfig(), context).source(config.split, config.dataset)


def make_evaluations(setup: Setup) -> Evaluations:
    """Opens the config's evaluations; their batches are no larger than a training micro-batch.

    Raises:
      UserError: a data set is missing, or does not fit its evaluation.
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
    config: TrainConfig, model: ModelConfig, source: Source
) -> tuple[Params, ModelConfig]:
    assert config.init_from is not None
    weights = open_weights(resolve(config.init_from), model.image_size)
    weights = with_head_for(weights, source.class_names, model.num_classes or 0)
    return params_for(weights, model, config.position_resize)


def _check_early_stop(config: TrainConfig, total_steps: int) -> None:
    if config.early_stop is None:
        return
    name = config.early_stop.eval
    every_steps = config.evals[name].every_steps
    if every_steps is not None and every_steps >= total_steps:
        raise UserError(
            f"config.early_stop would be ignored: evals.{name}.every_steps={every_steps} is not "
            f"below the {total_steps} steps of the run; lower it"
        )


def _check_classes(config: TrainConfig, source: Source) -> None:
    if config.objective.learns_labels and not source.class_names:
        raise UserError(
            f"{source.name} has no labels, and objective.kind={config.objective.kind} learns from "
            "them; name labelled data, or take objective.kind=masked_patches"
        )
    if config.objective.learns_labels and config.loss == "softmax" and len(source.class_names) == 1:
        raise UserError(
            f"{source.name} has one class, {source.class_names[0]!r}, and with config.loss=softmax "
            "every answer would be right; add images of another class"
        )


def _with_classes(config: TrainConfig, source: Source) -> ModelConfig:
    model, classes = config.model, len(source.class_names)
    if model.num_classes == 0 and not config.objective.learns_labels:
        return model
    if model.num_classes is None:
        return dataclasses.replace(model, num_classes=classes)
    if model.num_classes < classes:
        raise UserError(
            f"config.model.num_classes: {model.num_classes} is below the {classes} classes of "
            f"{source.name}; raise it, or leave it out to follow the data"
        )
    return model
