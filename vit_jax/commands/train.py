"""`train`: one run, started or gone on with."""

import argparse

from vit_jax.commands.arguments import file_path, steps
from vit_jax.commands.processes import add_process_flags, fail_together, join
from vit_jax.config import load_config
from vit_jax.schema import build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE.py[:ARGUMENT]",
        help="a config file, such as configs/finetune.py:b16,cifar10; "
        "--config.SECTION.KEY=VALUE changes one of its values",
    )
    parser.add_argument(
        "--workdir", required=True, help="the run's directory; a run that it holds is gone on with"
    )
    parser.add_argument(
        "--compile_cache",
        type=file_path,
        metavar="DIR",
        help="keeps compiled programs there, so that the next start need not compile them again",
    )
    parser.add_argument(
        "--profile",
        type=steps,
        default=range(0),
        metavar="FIRST:LAST",
        help="traces these steps into WORKDIR/profile, for TensorBoard; not the first ones, which "
        "wait for the compiler",
    )
    add_process_flags(parser)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    from vit_jax.training.compile_cache import use_compile_cache
    from vit_jax.training.config import TrainConfig
    from vit_jax.training.loop import train

    with fail_together():
        join(arguments)
        if arguments.compile_cache is not None:
            use_compile_cache(arguments.compile_cache)
        config = build(TrainConfig, load_config(arguments.config, overrides))
        train(config, arguments.workdir, profile=arguments.profile)
