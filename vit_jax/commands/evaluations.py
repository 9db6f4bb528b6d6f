"""What `evaluate` scores a weight file on: a data set, or the evaluations of a config."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vit_jax.commands.sent_runs import refuse_remote
from vit_jax.config import apply_overrides, load_config
from vit_jax.data.sources.own_splits import split_to_score
from vit_jax.errors import NoDataError, UserError
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import EvalContext
from vit_jax.evaluation.weight_files import ScoredModel, open_scored
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.runs.config_file import is_run, read_config
from vit_jax.schema import build
from vit_jax.spelling import nearest
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import open_training

# Keys of an evaluator that have flags of their own, or mean nothing without training.
_NOT_OPTIONS = ("split", "dataset", "every_steps", "batch_size")
# Keys of an evaluator that have flags of their own besides `--evaluator.KEY`.
_OWN_FLAGS = ("classes", "class_map")


class Job(NamedTuple):
    """What to score one weight file on, and how."""

    model: ScoredModel
    evals: Mapping[str, EvalConfig]
    context: EvalContext
    mesh: MeshConfig


def config_job(weights: str, arguments: argparse.Namespace, changes: Sequence[str]) -> Job:
    """The evaluations of a config, or of the run that the weights are of."""

    if arguments.config is not None:
        values = load_config(arguments.config, changes)
    elif is_run(weights):
        values = apply_overrides(read_config(weights), changes)
        refuse_remote(weights, values, changes)
    else:
        raise UserError(
            f"--weights={weights} is not the directory of a run, which would name what to "
            "evaluate on; give --dataset, or --config"
        )
    config = build(TrainConfig, values)
    if arguments.config is None:
        _refuse_beyond_reading(config.evals, changes)
    if not config.evals:
        raise UserError("config.evals is empty: give --dataset, or --config.evals.test.split=test")
    model = open_scored(weights, like=config.model, image_size=arguments.image_size)
    names = model.class_names
    if names is None and arguments.config is None:
        names = _names_of_training_data(config, model.config.num_classes or 0)
    rows = config.data.batch_size // config.optimizer.micro_batches
    context = EvalContext.of_run(
        config.data,
        class_names=names,
        loss=config.loss,
        batch_size=arguments.batch_size or rows,
    )
    return Job(model, config.evals, context, config.mesh)


def _refuse_beyond_reading(evals: Mapping[str, EvalConfig], changes: Sequence[str]) -> None:
    """A run may have been sent by someone; what its config says writes no file by itself."""
    for name, config in evals.items():
        for key, what in config.beyond_reading().items():
            flag = f"--config.evals.{name}.{key}="
            if not any(change.startswith(flag) for change in changes):
                raise UserError(
                    f"evaluation {name} of the run's config {what}, which it does only if you say "
                    f"so: add {flag}{getattr(config, key)}"
                )


def _names_of_training_data(config: TrainConfig, num_classes: int) -> tuple[str, ...] | None:
    """The names of a run's classes if its head has more outputs: its weights then have none."""

    try:
        names = open_training(config.data).class_names
    except NoDataError:
        return None
    return names if len(names) < num_classes else None


def flags_job(weights: str, arguments: argparse.Namespace, options: Sequence[str]) -> Job:
    """One evaluation of each kind on the data set that the flags name."""

    split = arguments.split or split_to_score(
        arguments.dataset, arguments.data_dir, arguments.label
    )
    model = open_scored(weights, image_size=arguments.image_size)
    context = EvalContext(
        class_names=model.class_names,
        dataset=arguments.dataset,
        data_dir=arguments.data_dir,
        label=arguments.label,
        workers=arguments.workers or 0,
        on_error=arguments.on_error or "stop",
        loss=model.loss or "softmax",
        batch_size=arguments.batch_size,
        option=_flag,
        on_error_flag="--on_error",
    )
    return Job(model, _evals(arguments, split, options), context, MeshConfig())


def _flag(name: str, key: str) -> str:
    """How a user of flags sets a key of an evaluation."""
    del name
    return f"--{key}" if key in (*_NOT_OPTIONS, *_OWN_FLAGS) else f"--evaluator.{key}"


def _evals(
    arguments: argparse.Namespace, split: str, options: Sequence[str]
) -> dict[str, EvalConfig]:
    """An evaluation of each kind, called by it."""

    kinds = list(dict.fromkeys((arguments.evaluator or "classification").split(",")))
    keys = {kind: [f.name for f in dataclasses.fields(EvalConfig.kinds[kind])] for kind in kinds}
    values: dict[str, Any] = {kind: {"kind": kind, "split": split} for kind in kinds}
    for flag in _OWN_FLAGS:
        if (value := getattr(arguments, flag)) is not None:
            options = [*options, f"--evaluator.{flag}={value}"]
    for option in options:
        key = option.removeprefix("--evaluator.").partition("=")[0]
        own = key.partition(".")[0]  # A key may have keys of its own, as `features.tokens`.
        having = [kind for kind in kinds if own in keys[kind] and own not in _NOT_OPTIONS]
        if not having:
            known = sorted({key for kind in kinds for key in keys[kind]} - {*_NOT_OPTIONS})
            raise UserError(
                f"{option!r}: --evaluator={','.join(kinds)} has no key {key!r}{nearest(key, known)}"
            )
        for kind in having:
            changed = option.replace("--evaluator.", f"--config.{kind}.", 1)
            values = apply_overrides(values, [changed])
    return {kind: build(EvalConfig, values[kind], "evaluator") for kind in kinds}
