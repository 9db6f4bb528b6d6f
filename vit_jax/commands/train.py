"""`train`: starts a run, or resumes one."""

import argparse
import logging
import os
from typing import TYPE_CHECKING

from vit_jax.commands.arguments import file_path, minutes, steps
from vit_jax.commands.processes import add_process_flags, fail_together, join
from vit_jax.config import load_config
from vit_jax.errors import UserError
from vit_jax.plain import plain

if TYPE_CHECKING:
    from vit_jax.experiments.report.during import RunReport

_log = logging.getLogger(__name__)


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
        "--max_minutes",
        type=minutes,
        metavar="MINUTES",
        help="end after so many minutes, with state saved and weights evaluated and written; the "
        "same command resumes. Default: the config's max_minutes",
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
    parser.add_argument(
        "--report",
        choices=("on", "off"),
        default=os.environ.get("VIT_JAX_REPORT", "on"),
        help="whether WORKDIR/report.html shows the run, while it trains and when it has ended "
        "(the value of VIT_JAX_REPORT, otherwise on)",
    )
    add_process_flags(parser)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    from vit_jax.parallel.agreement import on_all_processes
    from vit_jax.training.compile_cache import use_compile_cache
    from vit_jax.training.loop import train

    with fail_together():
        join(arguments)
        if arguments.compile_cache is not None:
            use_compile_cache(arguments.compile_cache)
        with on_all_processes():
            report = _report(arguments)
            config = load_config(arguments.config, overrides)
        train(
            config,
            arguments.workdir,
            callbacks=() if report is None else (report,),
            profile=arguments.profile,
            extend_to=arguments.extend_to,
            accept_changed_data=arguments.accept_changed_data,
            max_minutes=arguments.max_minutes,
        )
        if report is not None:
            _finish(report)


def _report(arguments: argparse.Namespace) -> "RunReport | None":
    if arguments.report not in ("on", "off"):
        raise UserError(f"VIT_JAX_REPORT={arguments.report}: say on or off")
    if arguments.report == "off":
        return None
    from vit_jax.experiments.report import check_plots

    try:
        check_plots()
    except UserError as error:
        _log.info("%s; then `python -m vit_jax report %s` makes it", error, arguments.workdir)
        return None
    from vit_jax.experiments.report.during import RunReport

    return RunReport(arguments.workdir)


def _finish(report: "RunReport") -> None:
    """Writes the report of a run that has ended; what fails there does not make the run fail."""
    import jax

    if jax.process_index() != 0:
        return
    try:
        file = report.finish()
    except Exception:
        _log.exception("the report could not be written")
    else:
        print(f"the report is in {plain(str(file))}", flush=True)
