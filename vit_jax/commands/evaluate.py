"""`evaluate`: scores weights on a data set, or on the evaluations of a run or a config."""

import argparse
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vit_jax.atomic import write_bytes
from vit_jax.commands.arguments import add_image_size, check_output, file_path
from vit_jax.commands.processes import add_process_flags, fail_together, join
from vit_jax.config import apply_overrides, load_config
from vit_jax.errors import NoDataError, UserError
from vit_jax.plain import plain
from vit_jax.schema import build
from vit_jax.spelling import nearest

if TYPE_CHECKING:
    from vit_jax.evaluation.config import EvalConfig
    from vit_jax.evaluation.context import EvalContext
    from vit_jax.evaluation.table import Row
    from vit_jax.evaluation.weight_files import ScoredModel
    from vit_jax.parallel.mesh import MeshConfig
    from vit_jax.training.config import TrainConfig

# Arguments that `__main__` hands to `run` as they are: changes of a config, and of an evaluator.
OVERRIDES = ("--config.", "--evaluator.")
# Flags that would be ignored where a config says what to evaluate on.
_ONLY_WITH_DATASET = (
    *("split", "evaluator", "classes", "class_map"),
    *("label", "data_dir", "workers", "on_error"),
)
# Keys of an evaluator that have flags of their own, or mean nothing without training.
_NOT_OPTIONS = ("split", "dataset", "every_steps", "batch_size")

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--weights",
        required=True,
        nargs="+",
        action="extend",
        help="files, directories of runs that have ended, or names of released files",
    )
    parser.add_argument(
        "--dataset",
        help="a TFDS name, or a folder of images with one folder for each class; without it, each "
        "run is scored on the evaluations of its own config",
    )
    parser.add_argument(
        "--split",
        help="such as test, train[:10%%] or all (test; if there is none, val; a folder without "
        "splits is scored whole)",
    )
    parser.add_argument(
        "--evaluator",
        metavar="KIND[,KIND]",
        help="what to compute (classification); --evaluator.KEY=VALUE sets an option of it",
    )
    parser.add_argument(
        "--classes",
        choices=("all", "subset"),
        help="whether all of the model's classes compete, or only those of the data set (all)",
    )
    parser.add_argument(
        "--class_map",
        type=file_path,
        metavar="FILE",
        help="a .txt file with a line 'data name -> model name' for each class whose names differ, "
        "or the same as .csv or .json",
    )
    add_image_size(parser, "that of the weights")
    parser.add_argument(
        "--batch_size", type=int, help="images at a time (32 a device, or fewer if they do not fit)"
    )
    parser.add_argument(
        "--output", type=file_path, help="FILE.json or FILE.csv to write the scores to as well"
    )
    parser.add_argument("--data_dir", help="where TFDS data sets lie (TFDS's own default)")
    parser.add_argument("--label", help="the TFDS feature that is the label (the obvious one)")
    parser.add_argument("--workers", type=int, help="processes that decode (0, which is threads)")
    parser.add_argument(
        "--on_error",
        choices=("stop", "skip"),
        help="what an image that cannot be read does: end the command, or be left out (stop)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE.py[:ARGUMENT]",
        help="score on the evaluations of this config; --config.SECTION.KEY=VALUE changes a value",
    )
    add_process_flags(parser)


class _Job(NamedTuple):
    """What to score one weight file on, and how."""

    model: "ScoredModel"
    evals: "Mapping[str, EvalConfig]"
    context: "EvalContext"
    mesh: "MeshConfig"


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints a table and, with --output, writes it to a file."""
    changes = [each for each in overrides if each.startswith("--config.")]
    options = [each for each in overrides if each not in changes]
    _check(arguments, changes, options)
    with fail_together():
        join(arguments)
        import jax

        from vit_jax.evaluation.table import as_text

        rows = _score_all(arguments, changes, options)
        if jax.process_index() == 0:
            print(as_text(rows))
            if arguments.output is not None:
                _write(arguments.output, rows)


def _score_all(
    arguments: argparse.Namespace, changes: Sequence[str], options: Sequence[str]
) -> "list[Row]":
    import jax

    from vit_jax.evaluation.table import Row
    from vit_jax.evaluation.weight_files import Scorer
    from vit_jax.parallel.agreement import check_same, on_all_processes
    from vit_jax.parallel.mesh import make_mesh
    from vit_jax.training.process_checks import check_same_data, digest_of_file

    if arguments.config is not None and arguments.dataset is not None:
        load_config(arguments.config, changes)  # It may register evaluators and data sets.
    if arguments.class_map is not None:
        contents = {"contents": digest_of_file(arguments.class_map)}
        check_same(contents, "another --class_map", "give all hosts the same file")
    rows = []
    with Scorer() as scorer, _Progress(shown=jax.process_index() == 0) as progress:
        for weights in arguments.weights:
            with on_all_processes():
                if arguments.dataset is None:
                    job = _config_job(weights, arguments, changes)
                else:
                    job = _flags_job(weights, arguments, options)
            found = scorer.score(
                job.model,
                job.evals,
                mesh=make_mesh(job.mesh),
                context=job.context,
                check=lambda evaluations: check_same_data(evaluations.sources()),
                progress=progress,
            )
            for name, data, scores in found:
                rows.append(Row(weights, name, data, scores))
                if jax.process_index() == 0:
                    _log.info("%s: %s on %s: %s", weights, name, data, scores.line)
    return rows


def _check(arguments: argparse.Namespace, changes: Sequence[str], options: Sequence[str]) -> None:
    """Refuses flags that do not go together, before anything is opened."""
    if arguments.output is not None and arguments.output.suffix not in (".json", ".csv"):
        raise UserError(f"--output={arguments.output}: name a .json or a .csv file")
    if arguments.output is not None:
        check_output(arguments.output)
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise UserError(f"--batch_size={arguments.batch_size} must be at least 1")
    if (arguments.workers or 0) < 0:
        raise UserError(f"--workers={arguments.workers} must be at least 0")
    if arguments.dataset is not None:
        if changes and arguments.config is None:
            raise UserError(f"{changes[0]!r} would be ignored: it needs --config")
        return
    for key in _ONLY_WITH_DATASET:
        value = getattr(arguments, key)
        if value is not None:
            raise UserError(f"--{key}={value} would be ignored: it needs --dataset")
    if options:
        raise UserError(f"{options[0]!r} would be ignored: it needs --dataset")


def _config_job(weights: str, arguments: argparse.Namespace, changes: Sequence[str]) -> "_Job":
    """The evaluations of a config, or of the run that the weights are of."""
    from vit_jax.evaluation.context import EvalContext
    from vit_jax.evaluation.weight_files import open_scored
    from vit_jax.runs.directory import is_run, read_config
    from vit_jax.training.config import TrainConfig

    if arguments.config is not None:
        values = load_config(arguments.config, changes)
    elif is_run(weights):
        values = apply_overrides(read_config(weights), changes)
        _refuse_remote(values, changes)
    else:
        raise UserError(
            f"--weights={weights} is not the directory of a run, which would name what to "
            "evaluate on; give --dataset, or --config"
        )
    config = build(TrainConfig, values)
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
    return _Job(model, config.evals, context, config.mesh)


def _refuse_remote(values: Mapping[str, Any], changes: Sequence[str]) -> None:
    """A run may have been sent by someone; what its config says reaches no network by itself."""
    data = values.get("data")
    address = data.get("data_dir") if isinstance(data, Mapping) else None
    flag = "--config.data.data_dir="
    if "://" in str(address) and not any(change.startswith(flag) for change in changes):
        raise UserError(
            f"the run's config names data at {address}, which is read over a network only if you "
            f"say so: add {flag}{address}"
        )


def _names_of_training_data(config: "TrainConfig", num_classes: int) -> tuple[str, ...] | None:
    """The names of a run's classes if its head has more outputs: its weights then have none."""
    from vit_jax.training.setup import open_training

    try:
        names = open_training(config.data).class_names
    except NoDataError:
        return None
    return names if len(names) < num_classes else None


def _flags_job(weights: str, arguments: argparse.Namespace, options: Sequence[str]) -> "_Job":
    """One evaluation of each kind on the data set that the flags name."""
    from vit_jax.data.sources.own_splits import split_to_score
    from vit_jax.evaluation.context import EvalContext
    from vit_jax.evaluation.weight_files import open_scored
    from vit_jax.parallel.mesh import MeshConfig

    split = arguments.split or split_to_score(arguments.dataset, arguments.data_dir)
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
        option="--{key}",
        on_error_flag="--on_error",
    )
    return _Job(model, _evals(arguments, split, options), context, MeshConfig())


def _evals(
    arguments: argparse.Namespace, split: str, options: Sequence[str]
) -> "dict[str, EvalConfig]":
    """An evaluation of each kind, called by it."""
    from vit_jax.evaluation.config import EvalConfig

    kinds = list(dict.fromkeys((arguments.evaluator or "classification").split(",")))
    keys = {kind: [f.name for f in dataclasses.fields(EvalConfig.kinds[kind])] for kind in kinds}
    values: dict[str, Any] = {kind: {"kind": kind, "split": split} for kind in kinds}
    for flag in ("classes", "class_map"):
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


class _Progress:
    """A bar on a terminal for each data set that a model runs over."""

    def __init__(self, *, shown: bool):
        self._shown = shown
        self._bar: Any = None

    def __call__(self, source: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None or done <= self._bar.n:
            self.close()
            disable = None if self._shown else True
            self._bar = tqdm(
                total=total, desc=plain(source), unit="img", leave=False, disable=disable
            )
        self._bar.update(done - self._bar.n)
        if done == total:
            self.close()

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _write(path: Path, rows: "Sequence[Row]") -> None:
    """Writes all rows, with scores at full precision; the file appears when it is whole."""
    from vit_jax.evaluation.table import as_csv, as_json

    text = as_json(rows) if path.suffix == ".json" else as_csv(rows)
    try:
        # Names of files need not be text.
        write_bytes(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UserError(f"--output={path}: {error.strerror}; choose another file") from error
