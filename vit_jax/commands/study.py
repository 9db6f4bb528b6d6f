"""`study`: trains the cells of one of the paper's ablations, and says what they show."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vit_jax import pictures
from vit_jax.commands.arguments import add_seeds, file_path
from vit_jax.commands.output import show
from vit_jax.commands.output_files import check_output, output_path, write_outputs
from vit_jax.config import load_config
from vit_jax.errors import UserError

if TYPE_CHECKING:
    from vit_jax.training.config import TrainConfig

OVERRIDES = ("--config.",)

_STUDIES = """studies of "An Image is Worth 16x16 Words" (arXiv 2010.11929v2):
  heads       class token and mean over patches, Figure 9
  optimizers  Adam and SGD in pre-training, Table 7
  positions   none, 1-D, 2-D and relative positions, Table 8
  shape       depth, width, MLP and patches, Figure 8
  subsets     parts of the data, Figure 4"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.epilog = _STUDIES
    parser.add_argument("name", metavar="NAME", help="see below")
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE.py[:ARGUMENT]",
        help="as for train: what the study varies; --config.SECTION.KEY=VALUE changes a value of "
        "every cell",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        type=file_path,
        help="directory of the study and its runs; an existing study is resumed",
    )
    add_seeds(parser)
    parser.add_argument(
        "--score",
        metavar="EVALUATION/METRIC",
        help="what is compared (top1 of the config's only evaluation)",
    )
    parser.add_argument(
        "--output",
        type=output_path,
        metavar="FILE",
        help="a .md, .csv or .json file to write the table to as well, or a .png or .svg picture",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints a table with the verdicts."""
    from vit_jax.experiments.paper.page import FORMS, as_text
    from vit_jax.experiments.studies.ablations import STUDIES, Base
    from vit_jax.experiments.studies.page import as_page, draw
    from vit_jax.experiments.studies.running import run_study
    from vit_jax.schema import build
    from vit_jax.spelling import nearest
    from vit_jax.training.config import TrainConfig

    if arguments.name not in STUDIES:
        raise UserError(
            f"no study {arguments.name!r}; name one of {', '.join(STUDIES)}"
            f"{nearest(arguments.name, STUDIES)}"
        )
    output = arguments.output
    if output is not None:
        if output.suffix not in (*FORMS, *pictures.SUFFIXES):
            endings = ", ".join((*FORMS, *pictures.SUFFIXES))
            raise UserError(f"--output={output}: name a file that ends with {endings}")
        if pictures.is_picture(output):
            pictures.require_plots(f"--output={output}")
        check_output(output)
    config = build(TrainConfig, load_config(arguments.config, overrides))
    score = arguments.score or _only_score(config)
    study = STUDIES[arguments.name](Base(arguments.config, tuple(overrides), config, score))
    results = run_study(study, arguments.workdir, arguments.seeds, show)
    page = as_page(study, results)
    show(f"\n{as_text(page)}")
    if output is None:
        return
    if pictures.is_picture(output):
        content = draw(study, results, output.suffix)
    else:
        content = FORMS[output.suffix](page).encode()
    write_outputs({output: content})


def _only_score(config: TrainConfig) -> str:
    names = list(config.evals)
    if len(names) != 1:
        known = f"it has {', '.join(names)}" if names else "it has none"
        raise UserError(
            f"--score is missing: name EVALUATION/METRIC of the config's evaluations; {known}"
        )
    metric = "top1_5_shot" if config.evals[names[0]].kind == "few_shot" else "top1"
    return f"{names[0]}/{metric}"
