"""`paper`: prints a published table beside our own results."""

import argparse
from pathlib import Path

from vit_jax.atomic import write_bytes
from vit_jax.commands.arguments import check_output, file_path
from vit_jax.errors import UserError

_TABLES = """tables of "An Image is Worth 16x16 Words" (arXiv 2010.11929v2):
  1 models       2 the state of the art     3 pre-training   4 fine-tuning   5 data of pre-training
  6 compute      7 Adam and SGD             8 positions      9 VTAB-1k
others:
  augreg       Table 3 of "How to train your ViT?" (arXiv 2106.10270)
  timm         timm's results for weights that this package reads
  leaderboard  rows on leaderboards, with the commands that would score them"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.epilog = _TABLES
    parser.add_argument("--table", required=True, metavar="NAME", help="see below")
    parser.add_argument(
        "--runs",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="runs to show beside the published figures: directories of runs or of several runs, "
        "and .json files that evaluate --output wrote",
    )
    parser.add_argument(
        "--output",
        type=file_path,
        metavar="FILE",
        help="a .md, .csv or .json file to write the table to as well",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    del overrides  # It has no --config, so there are none.
    from vit_jax.experiments.paper.page import FORMS, as_text
    from vit_jax.experiments.paper.tables import table

    output = arguments.output
    if output is not None:
        if output.suffix not in FORMS:
            raise UserError(f"--output={output}: name a file that ends with {', '.join(FORMS)}")
        check_output(output)
    page = table(arguments.table, arguments.runs)
    print(as_text(page))
    if output is not None:
        _write(output, FORMS[output.suffix](page))


def _write(path: Path, text: str) -> None:
    try:
        write_bytes(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UserError(f"--output={path}: {error.strerror}; choose another file") from error
