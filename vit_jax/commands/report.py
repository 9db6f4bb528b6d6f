"""`report`: writes a page of one run, or of several side by side."""

import argparse

from vit_jax.commands.output_files import check_output, output_path
from vit_jax.errors import UserError
from vit_jax.plain import plain
from vit_jax.storage.paths import as_path


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
    del overrides  # It has no --config, so there are none.
    output = arguments.output
    if output is None:
        if len(arguments.runs) > 1:
            raise UserError("several runs need --output=FILE.html")
        output = as_path(arguments.runs[0]) / "report.html"
    check_output(output)
    from vit_jax.experiments.report import check_plots

    check_plots()
    from vit_jax.experiments.report.page import write_report

    write_report(arguments.runs, output)
    print(f"the report is in {plain(str(output))}")
