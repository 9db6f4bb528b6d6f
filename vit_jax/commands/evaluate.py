"""`evaluate`: scores weights on a data set, or on the evaluations of a run or a config."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from vit_jax import pictures
from vit_jax.commands.arguments import add_image_size, file_path
from vit_jax.commands.output_files import check_output, output_path, write_outputs
from vit_jax.commands.processes import add_process_flags, fail_together, join
from vit_jax.config import load_config
from vit_jax.errors import UserError
from vit_jax.plain import plain

if TYPE_CHECKING:
    from vit_jax.evaluation.config import EvalConfig
    from vit_jax.evaluation.table import Row

# Arguments that `__main__` hands to `run` as they are: changes of a config, and of an evaluator.
OVERRIDES = ("--config.", "--evaluator.")
# Flags that would be ignored where a config says what to evaluate on.
_ONLY_WITH_DATASET = (
    *("split", "evaluator", "classes", "class_map"),
    *("label", "data_dir", "workers", "on_error"),
)
_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--weights",
        required=True,
        nargs="+",
        action="extend",
        help="files, directories of runs that have ended, names of released files, or "
        "hf://ORG/NAME[@REVISION] of the Hugging Face Hub",
    )
    parser.add_argument(
        "--dataset",
        help="a folder of images with a folder for each class, a table of images and labels, or a "
        "TFDS name; without it, each run is scored on the evaluations of its own config",
    )
    parser.add_argument(
        "--split",
        help="such as test, train[:10%%] or all (test; if there is none, val; a folder without "
        "splits is scored whole)",
    )
    parser.add_argument(
        "--evaluator",
        metavar="KIND[,KIND]",
        help="what to compute (classification), such as per_class or, of a known test set, "
        "imagenet_real; --evaluator.KEY=VALUE sets an option of it",
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
        "--output",
        type=output_path,
        action="append",
        default=[],
        metavar="FILE",
        help="a .json or .csv file to write the scores to as well, or a .png or .svg picture of "
        "them; may be given several times",
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
            for path in arguments.output:
                _write(path, rows)


def _score_all(
    arguments: argparse.Namespace, changes: Sequence[str], options: Sequence[str]
) -> "list[Row]":
    import jax

    from vit_jax.commands.evaluations import config_job, flags_job
    from vit_jax.evaluation.table import Row
    from vit_jax.evaluation.weight_files import Scorer
    from vit_jax.parallel.agreement import check_same, gather_texts, on_all_processes
    from vit_jax.parallel.mesh import make_mesh
    from vit_jax.training.process_checks import check_same_data, digest_of_file
    from vit_jax.weights.catalogue.names import pinned

    if arguments.config is not None and arguments.dataset is not None:
        load_config(arguments.config, changes)  # It may register evaluators and data sets.
    if arguments.class_map is not None:
        contents = {"contents": digest_of_file(arguments.class_map)}
        check_same(contents, "another --class_map", "give all hosts the same file")
    rows = []
    with Scorer() as scorer, _Progress(shown=jax.process_index() == 0) as progress:
        for given in arguments.weights:
            with on_all_processes():
                weights = pinned(given)
            if weights != given:  # A branch may have moved from one process to the next.
                weights = gather_texts(weights)[0]
            with on_all_processes():
                if arguments.dataset is None:
                    job = config_job(weights, arguments, changes)
                else:
                    job = flags_job(weights, arguments, options)
            if len(arguments.weights) > 1:
                _refuse_overwriting(job.evals)
            found = scorer.score(
                job.model,
                job.evals,
                mesh=make_mesh(job.mesh),
                context=job.context,
                check=lambda evaluations: check_same_data(evaluations.sources()),
                progress=progress,
            )
            for name, data, scores in found:
                rows.append(Row(weights, name, data, scores, job.model.config.input_size))
                if jax.process_index() == 0:
                    # A kind may have a table of its own, such as that of all classes.
                    for line in f"{weights}: {name} on {data}: {scores.line}".split("\n"):
                        _log.info("%s", line)
    return rows


def _refuse_overwriting(evals: "Mapping[str, EvalConfig]") -> None:
    """Refuses evaluations that would write the file of one weight file over that of another."""
    for config in evals.values():
        for key, file in config.output_files().items():
            raise UserError(
                f"{key}={file} would hold the results of the last --weights only; score one "
                "weight file at a time"
            )


def _check(arguments: argparse.Namespace, changes: Sequence[str], options: Sequence[str]) -> None:
    """Refuses flags that do not go together, before anything is opened."""
    for path in arguments.output:
        if path.suffix not in (".json", ".csv", *pictures.SUFFIXES):
            raise UserError(f"--output={path}: name a .json, .csv, .png or .svg file")
        check_output(path)
        if pictures.is_picture(path):
            pictures.require_plots(f"--output={path}")
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


def _write(path: epath.Path, rows: "Sequence[Row]") -> None:
    """Writes all rows, with scores at full precision; the file appears when it is whole."""
    from vit_jax.evaluation.table import as_csv, as_json

    if pictures.is_picture(path):
        from vit_jax.evaluation.picture import as_picture

        content = as_picture(rows, path.suffix)
    else:
        text = as_json(rows) if path.suffix == ".json" else as_csv(rows)
        # Names of files need not be text.
        content = text.encode("utf-8", "backslashreplace")
    write_outputs({path: content})
