"""`vtab`: fine-tunes weights on each task of VTAB-1k, and prints Table 9 of the paper with them."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from vit_jax.commands.arguments import file_path
from vit_jax.commands.processes import add_process_flags, fail_together, join

# Changes that each task's config takes.
OVERRIDES = ("--config.",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--weights",
        required=True,
        help="a weight file, the directory of a run that has ended, the name of a released file, "
        "or hf://ORG/NAME[@REVISION] of the Hugging Face Hub",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        type=file_path,
        help="holds a run directory for each task, and vtab.csv; what is there is resumed",
    )
    parser.add_argument(
        "--tasks",
        metavar="TASK[,TASK]",
        help="tasks, or groups of them: natural, specialized, structured (all 19)",
    )
    parser.add_argument(
        "--recipe",
        default="paper",
        choices=("paper", "hyperrule"),
        help="the paper's one setting, or the BiT-HyperRule (paper); --config.SECTION.KEY=VALUE "
        "changes a value of each run",
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=("test", "val"),
        help="test: train on 1,000 examples, score on the test split; val: train on 800 of them, "
        "score on the other 200 (test)",
    )
    parser.add_argument("--data_dir", help="where TFDS data sets lie (TFDS's own default)")
    parser.add_argument(
        "--compile_cache",
        type=file_path,
        metavar="DIR",
        help="keep compiled programs there, so that a restart skips compilation",
    )
    add_process_flags(parser)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints a table and writes it to `WORKDIR/vtab.csv`."""
    from vit_jax.experiments.vtab import chosen_tasks, run_tasks

    tasks = chosen_tasks(arguments.tasks)
    with fail_together():
        join(arguments)
        import jax

        from vit_jax.training.compile_cache import use_compile_cache

        if arguments.compile_cache is not None:
            use_compile_cache(arguments.compile_cache)
        accuracies = run_tasks(
            arguments.weights,
            arguments.workdir,
            tasks,
            recipe=arguments.recipe,
            split=arguments.split,
            data_dir=arguments.data_dir,
            changes=overrides,
        )
        if jax.process_index() == 0:
            print(_table(accuracies))
            _write(arguments.workdir / "vtab.csv", accuracies)


def _table(accuracies: Mapping[str, float]) -> str:
    """A line for each column of Table 9 and each mean, ours beside the paper's."""
    from vit_jax.data.sources.vtab import TASKS
    from vit_jax.experiments.vtab import means, published

    columns = {"ours": accuracies, **published()}
    complete = {column: {**found, **means(found)} for column, found in columns.items()}
    rows: dict[str, str] = {}  # What is printed for each, groups before their tasks.
    for name, task in TASKS.items():
        rows |= {task.group: task.group, name: f"  {name}"}
    lines = [["top-1 in percent", *complete]]
    for row, title in {**rows, "mean": "mean"}.items():
        values = (found.get(row) for found in complete.values())
        lines.append([title, *("-" if v is None else f"{100 * v:.1f}" for v in values)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([title.ljust(widths[0]), *map(str.rjust, cells, widths[1:])])
        for title, *cells in lines
    ]
    if len(accuracies) < len(TASKS):
        text.append(f"{len(accuracies)} of {len(TASKS)} tasks; a mean needs all of its tasks")
    return "\n".join(text)


def _write(path: Path, accuracies: Mapping[str, float]) -> None:
    """Writes the row of Table 9, in percent, with its columns as headings, then the means."""
    from vit_jax.atomic import write_bytes
    from vit_jax.experiments.vtab import means

    columns = {**accuracies, **means(accuracies)}
    values = (f"{100 * value:.4f}" for value in columns.values())
    write_bytes(path, f"{','.join(columns)}\n{','.join(values)}\n".encode())
