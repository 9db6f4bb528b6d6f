"""`report`: writes a page of one run, or of several side by side."""

import argparse
from collections.abc import Sequence

from vit_jax.commands.output_files import check_output, output_path
from vit_jax.commands.sent_runs import refuse_remote, remote_data
from vit_jax.errors import UserError
from vit_jax.plain import plain
from vit_jax.runs.config_file import is_run, read_config
from vit_jax.storage.paths import as_path

# Data that the run's config names by an address, which is read only if it is typed here too.
OVERRIDES = ("--config.",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument("runs", nargs="+", metavar="DIR", help="directories of runs")
    parser.add_argument(
        "--output",
        type=output_path,
        metavar="FILE.html",
        help="the page (report.html in the directory of a single run, on a disk or in a bucket)",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints where the page is."""
    output = arguments.output
    if output is None:
        if len(arguments.runs) > 1:
            raise UserError("several runs need --output=FILE.html")
        output = as_path(arguments.runs[0]) / "report.html"
    check_output(output)
    _check_data(arguments.runs, overrides)
    from vit_jax.experiments.report import check_plots

    check_plots()
    from vit_jax.experiments.report.page import write_report

    write_report(arguments.runs, output)
    print(f"the report is in {plain(str(output))}")


def _check_data(runs: Sequence[str], changes: Sequence[str]) -> None:
    """Refuses data at addresses that were not typed; and what names none, as it changes nothing."""
    configs = {run: read_config(run) for run in runs if is_run(run)}  # Others are told later.
    named = {
        f"{flag}={address}" for each in configs.values() for flag, address in remote_data(each)
    }
    for change in changes:
        if change not in named:
            raise UserError(
                f"{change!r} would be ignored: it only allows `report` to read data at an address "
                "that the run's config names"
            )
    for run, config in configs.items():
        refuse_remote(run, config, changes)
