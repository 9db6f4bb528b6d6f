"""`evaluate`: a weight file or a finished run, scored on a config's evaluations."""

import argparse
import dataclasses
import json
from typing import Any

from vit_jax.commands.processes import add_process_flags, fail_together, join
from vit_jax.config import apply_overrides, load_config
from vit_jax.errors import UserError
from vit_jax.schema import build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--weights",
        required=True,
        help="a file, the directory of a run that has ended, or the name of a released file",
    )
    parser.add_argument(
        "--config",
        metavar="FILE.py[:ARGUMENT]",
        help="gives model and evaluations; without it --weights must be a run, whose config is "
        "taken; --config.SECTION.KEY=VALUE changes one of its values",
    )
    add_process_flags(parser)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints a line of JSON for each evaluation."""
    from vit_jax.runs.directory import is_run, read_config

    with fail_together():
        join(arguments)
        if arguments.config is not None:
            values = load_config(arguments.config, overrides)
        elif is_run(arguments.weights):
            values = apply_overrides(read_config(arguments.weights), overrides)
        else:
            raise UserError(
                f"--weights={arguments.weights} is not the directory of a run, which would say "
                "what to evaluate on: give --config too"
            )
        _evaluate(values, arguments.weights)


def _evaluate(values: dict[str, Any], weights: str) -> None:
    import jax

    from vit_jax.training.config import TrainConfig
    from vit_jax.training.process_checks import check_same_config, check_same_data
    from vit_jax.training.setup import initial_params, make_evaluations, prepare

    config = build(TrainConfig, values)
    if not config.evals:
        raise UserError("config.evals is empty: name a split, as in --config.evals.test.split=test")
    setup = prepare(dataclasses.replace(config, init_from=weights), keep_head=True)
    check_same_config(setup.config)
    params = initial_params(setup)
    assert params is not None
    evaluations = make_evaluations(setup)
    check_same_data(evaluations.sources())
    with evaluations:
        for name, scores in evaluations.run(evaluations.names, params):
            if jax.process_index() == 0:
                line = {"weights": weights, "evaluation": name, **scores.values}
                print(json.dumps(line), flush=True)
