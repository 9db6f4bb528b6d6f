"""`train`: starts a run, or resumes one."""

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
        "--config.SECTION.KEY=VALUE changes one of its values (`python -m vit_jax options` lists "
        "them)",
    )
    parser.add_argument(
        "--workdir", required=True, help="run directory; an existing run is resumed"
    )
    parser.add_argument(
        "--extend_to",
        type=int,
        metavar="STEPS",
        help="resume a run, ended or not, and take more steps than its config says, this many in "
        "all",
    )
    parser.add_argument(
        "--accept_changed_data",
        action="store_true",
        help="resume even if files of the data were added, removed or changed; the run notes it",
    )
    parser.add_argument(
        "--compile_cache",
        type=file_path,
        metavar="DIR",
        help="keep compiled programs there, so that a restart skips compilation",
    )
    parser.add_argument(
        "--profile",
        type=steps,
        metavar="FIRST:LAST",
        help="trace these steps into WORKDIR/profile, for TensorBoard; leave out the first ones, "
        "which wait for the compiler",
    )
    add_process_flags(parser)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    from vit_jax.parallel.agreement import on_all_processes
    from vit_jax.training.compile_cache import use_compile_cache
    from vit_jax.training.config import TrainConfig
    from vit_jax.training.loop import train

    with fail_together():
        join(arguments)
        if arguments.compile_cache is not None:
            use_compile_cache(arguments.compile_cache)
        with on_all_processes():
            config = build(TrainConfig, load_config(arguments.config, overrides))
        train(
            config,
            arguments.workdir,
            profile=arguments.profile,
            extend_to=arguments.extend_to,
            accept_changed_data=arguments.accept_changed_data,
        )
