"""`paper`: prints or draws published figures beside our own results."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from vit_jax import pictures
from vit_jax.commands.output_files import check_output, output_path, write_outputs
from vit_jax.errors import UserError

if TYPE_CHECKING:
    from vit_jax.experiments.paper.page import Page

    # Makes the content of a picture whose name has an ending.
    _Draw = Callable[[str], bytes]

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
    shown = parser.add_mutually_exclusive_group(required=True)
    shown.add_argument("--table", metavar="NAME", help="see below")
    shown.add_argument(
        "--figure",
        choices=("3", "4", "5", "12", "13"),
        help="accuracy by data (3), by images of a subset (4) or by compute of pre-training (5); "
        "speed and largest batch by image size (12); accuracy of axial models by compute and speed "
        "(13)",
    )
    parser.add_argument(
        "--runs",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="runs to show beside the published figures: directories of runs or of several runs, "
        "and .json files that evaluate --output wrote; for --figure=12 files that benchmark "
        "inference --output=FILE.json wrote",
    )
    parser.add_argument(
        "--output",
        type=output_path,
        metavar="FILE",
        help="a .md, .csv or .json file to write the figures to as well, or a .png or .svg picture "
        "of --figure",
    )
    parser.add_argument(
        "--compute",
        choices=("exaflops", "device_hours"),
        help="the axis of --figure=5 (exaflops)",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    del overrides  # It has no --config, so there are none.
    from vit_jax.experiments.paper.page import FORMS, as_text
    from vit_jax.experiments.paper.tables import table

    output = arguments.output
    if arguments.compute is not None and arguments.figure != "5":
        raise UserError(f"--compute={arguments.compute} would be ignored: it needs --figure=5")
    if output is not None:
        endings = (*FORMS, *(pictures.SUFFIXES if arguments.figure else ()))
        if output.suffix not in endings:
            raise UserError(f"--output={output}: name a file that ends with {', '.join(endings)}")
        if pictures.is_picture(output):
            pictures.require_plots(f"--output={output}")
        check_output(output)
    if arguments.figure is None:
        page, draw = table(arguments.table, arguments.runs), None
    elif arguments.figure == "12":
        page, draw = _speeds(arguments.runs)
    elif arguments.figure == "13":
        page, draw = _axial(arguments.runs)
    else:
        page, draw = _scaling(arguments)
    print(as_text(page))
    if output is None:
        return
    if not pictures.is_picture(output):
        text = FORMS[output.suffix](page)
        write_outputs({output: text.encode("utf-8", "backslashreplace")})
    elif draw is None:
        raise UserError(f"--output={output}: there is no point to draw; give --runs with results")
    else:
        write_outputs({output: draw(output.suffix)})


def _scaling(arguments: argparse.Namespace) -> tuple[Page, _Draw | None]:
    from vit_jax.experiments.paper.scaling import scaling_figure
    from vit_jax.experiments.paper.scaling_picture import draw

    figure = scaling_figure(arguments.figure, arguments.runs, arguments.compute or "exaflops")
    return figure.as_page(), functools.partial(draw, figure) if figure.points else None


def _speeds(runs: list[str]) -> tuple[Page, _Draw | None]:
    from vit_jax.experiments.benchmark.picture import draw, is_drawable
    from vit_jax.experiments.paper.speeds import speed_figure

    page, values = speed_figure(runs)
    if values is None or not is_drawable(values):
        return page, None
    title = f"{page.source}. {page.title}"
    return page, functools.partial(draw, values, title=title)


def _axial(runs: list[str]) -> tuple[Page, _Draw | None]:
    from vit_jax.experiments.paper.axial import axial_figure
    from vit_jax.experiments.paper.axial_picture import draw

    figure = axial_figure(runs)
    return figure.as_page(), functools.partial(draw, figure) if figure.points else None
