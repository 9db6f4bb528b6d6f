"""VTAB-1k: a model fine-tuned on each of the tasks, one run after the other (Table 9 of the paper).

A run of each task lies in its own directory, `WORKDIR/TASK`, and is a run like any other. The same
call takes up what a former one left: runs that have ended are not repeated.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from vit_jax.analysis.published.results import TABLE_9
from vit_jax.config import load_config
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.vtab import TASKS, task_named
from vit_jax.errors import NoDataError, UserError
from vit_jax.parallel.agreement import on_all_processes
from vit_jax.training.choices import pinned_start
from vit_jax.training.choosing import SHAPE
from vit_jax.training.loop import train
from vit_jax.weights.catalogue.names import resolve
from vit_jax.weights.files import open_weights

_log = logging.getLogger(__name__)


def chosen_tasks(text: str | None) -> tuple[str, ...]:
    """The tasks that a list names, in the order of Table 9.

    Args:
      text: names of tasks and groups, such as "natural,dmlab"; None is all.

    Raises:
      UserError: there is no such task or group.
    """
    if text is None:
        return tuple(TASKS)
    groups = {task.group for task in TASKS.values()}
    words = [word.strip() for word in text.split(",")]
    named = {word for word in words if word not in groups}
    for word in named:
        task_named(word)
    return tuple(name for name, task in TASKS.items() if name in named or task.group in words)


def run_tasks(
    weights: str,
    workdir: str | os.PathLike[str],
    tasks: Sequence[str] = tuple(TASKS),
    *,
    recipe: str = "paper",
    split: str = "test",
    data_dir: str | None = None,
    changes: Sequence[str] = (),
) -> dict[str, float]:
    """Fine-tunes weights on each task, or resumes where a former call ended.

    Args:
      weights: a weight file, a finished run's directory, or a name as `resolve` takes it.
      workdir: holds a directory for each task.
      tasks: names in `TASKS`.
      recipe: "paper" or "hyperrule", as `configs/vtab.py` has them.
      split: "test" to train on all 1,000 examples and score on the test split, "val" to train on
        800 and score on the 200 held out.
      data_dir: where TFDS data sets lie; None is TFDS's default.
      changes: of each run's config, as `--config.SECTION.KEY=VALUE`.

    Returns:
      The top-1 accuracy of each task, from 0 to 1.

    Raises:
      UserError: data of a task is not prepared, or a change leaves a run without its accuracy,
        before any run starts; otherwise as `train`.
      Stopped, KeyboardInterrupt: as `train`.
    """
    with on_all_processes():
        _check_changes(changes, split)
        _check_data(tasks, data_dir)
    # One commit for all tasks, should the weights come from a branch of the Hub.
    weights = pinned_start(weights, *(Path(workdir) / task for task in tasks))
    with on_all_processes():
        model = open_weights(resolve(weights)).model
    own = {key: getattr(model, key) for key in SHAPE}
    given = {
        **{f"model.{key}": value for key, value in own.items() if value not in (None, 0)},
        "init_from": weights,
        "data.data_dir": data_dir,
    }
    accuracies: dict[str, float] = {}
    for number, task in enumerate(tasks, 1):
        argument = f"{model.name},{task},recipe={recipe},split={split}"
        with on_all_processes():
            config = load_config(
                f"configs/vtab.py:{argument}",
                [*(f"--config.{key}={value!r}" for key, value in given.items()), *changes],
            )
        if jax.process_index() == 0:
            _log.info("task %d of %d: %s", number, len(tasks), task)
        result = train(config, Path(workdir) / task)
        accuracies[task] = result.scores[f"{split}/top1"]
    return accuracies


def means(accuracies: Mapping[str, float]) -> dict[str, float]:
    """The mean of each group and of all tasks, as far as all of their tasks are there.

    Args:
      accuracies: of tasks, by the names in `TASKS`.

    Returns:
      By "natural", "specialized", "structured" and "mean". Each task counts alike.
    """
    members: dict[str, list[str]] = {}
    for name, task in TASKS.items():
        members.setdefault(task.group, []).append(name)
    members["mean"] = list(TASKS)
    return {
        group: sum(accuracies[name] for name in names) / len(names)
        for group, names in members.items()
        if all(name in accuracies for name in names)
    }


def published() -> dict[str, dict[str, float]]:
    """The accuracies of Table 9, from 0 to 1, by model and task."""
    return {
        column: {task: TABLE_9.value((group, task), column) / 100 for group, task in TABLE_9.rows}
        for column in TABLE_9.columns
    }


def _check_changes(changes: Sequence[str], split: str) -> None:
    for change in changes:
        key = change.removeprefix("--config.").partition("=")[0]
        own = f"evals.{split}"
        harmless = (f"{own}.batch_size", f"{own}.every_steps")
        if key in ("evals", own) or (key.startswith(f"{own}.") and key not in harmless):
            raise UserError(f"{change}: the evaluation {split} gives the accuracies; leave it out")
        if key == "max_minutes":
            raise UserError(
                f"{change}: runs would end before their last step, and such scores would stand in "
                "the table; leave it out (SIGTERM ends the command, and the same one resumes)"
            )


def _check_data(tasks: Sequence[str], data_dir: str | None) -> None:
    """Refuses to start where the data of a task is absent, with all that is."""
    absent: dict[str, str] = {}
    for name in tasks:
        try:
            open_source(f"vtab:{name}", "test", data_dir=data_dir)
        except NoDataError as error:
            by_hand = " (its files must be fetched by hand)" if TASKS[name].by_hand else ""
            absent.setdefault(TASKS[name].dataset + by_hand, error.remedy)
    if absent:
        first = next(iter(absent.values()))
        raise UserError(
            f"data sets of VTAB are not prepared: {', '.join(absent)}; for each, {first} "
            "(docs/vtab.md has what they need), or name the other tasks with --tasks"
        )
