"""`sweep`: tries a grid on a held-out part of train, then trains the best with several seeds."""

import argparse
import os
import re

from vit_jax.commands.arguments import file_path, seeds
from vit_jax.commands.output import show
from vit_jax.errors import UserError

OVERRIDES = ("--config.", "--grid.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE.py[:ARGUMENT]",
        help="as for train; --config.SECTION.KEY=VALUE changes one of its values in every run, and "
        "--grid.SECTION.KEY=VALUE,VALUE,… tries each of them. Default for the paper's data sets: "
        "the rates of its Table 4",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        type=file_path,
        help="directory of the sweep and its runs; an existing sweep is resumed",
    )
    parser.add_argument(
        "--held_out",
        type=_percent,
        metavar="PERCENT",
        help="the part of train, at its end, that scores the grid, such as 10%%. Default: the "
        "paper's, 10%% of Pets and Flowers, 2%% of CIFAR, 1%% of ImageNet",
    )
    parser.add_argument(
        "--score",
        metavar="EVALUATION/METRIC",
        help="what chooses. Default: top1 of the evaluation test",
    )
    parser.add_argument(
        "--mode",
        default="max",
        choices=("max", "min"),
        help="whether the highest or the lowest score is best (max)",
    )
    parser.add_argument(
        "--seeds",
        type=seeds,
        metavar="SEED,SEED,…",
        help="of the final runs. Default: three, from the config's seed on",
    )
    parser.add_argument(
        "--index",
        type=int,
        metavar="INDEX",
        help="carry out this run alone, from 0: first the grid, then the final runs. Default: "
        "SLURM_ARRAY_TASK_ID if that is set, otherwise all runs, one after the other",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints the results, or what is still missing."""
    from vit_jax.experiments.sweep import run_index, run_sweep
    from vit_jax.experiments.sweep_plan import make_plan

    plan = make_plan(
        arguments.config,
        arguments.workdir,
        overrides=[each for each in overrides if each.startswith("--config.")],
        grid=_grid([each for each in overrides if each.startswith("--grid.")]),
        held_out=arguments.held_out,
        score=arguments.score,
        mode=arguments.mode,
        seeds=arguments.seeds,
    )
    index = _index(arguments.index)
    results = run_sweep(plan, show) if index is None else run_index(plan, index, show)
    if results is not None:
        show(f"\n{results}\n\nthe results are in {plan.workdir / 'results.json'} and results.md")


def _grid(flags: list[str]) -> dict[str, list[str]] | None:
    """Reads `--grid.KEY=VALUE,VALUE`; None if there is no such flag."""
    grid: dict[str, list[str]] = {}
    for flag in flags:
        key, equals, text = flag.removeprefix("--grid.").partition("=")
        if not equals or not key:
            raise UserError(f"{flag}: write --grid.SECTION.KEY=VALUE,VALUE")
        if key in grid:
            raise UserError(f"--grid.{key} is there twice; write all its values in one")
        # Commas within brackets and quotes belong to a value.
        values = re.findall(r"(?:\([^()]*\)|\[[^\[\]]*\]|'[^']*'|\"[^\"]*\"|[^,])+", text)
        grid[key] = [value.strip() for value in values if value.strip()]
    return grid or None


def _index(given: int | None) -> int | None:
    if given is not None or not (text := os.environ.get("SLURM_ARRAY_TASK_ID", "")):
        return given
    if not text.isdecimal():
        raise UserError(f"SLURM_ARRAY_TASK_ID={text} is no index; give one with --index")
    return int(text)


def _percent(text: str) -> int:
    match = re.fullmatch(r"(\d+)%?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} must be whole percents, such as 10%")
    return int(match[1])
