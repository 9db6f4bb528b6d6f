"""`miniature`: tries the paper's claims with small models, and writes a page of what it found."""

import argparse
import shlex

from vit_jax.commands.arguments import add_seeds, file_path
from vit_jax.commands.output import show
from vit_jax.errors import UserError
from vit_jax.pictures import require_plots

OVERRIDES = ("--config.",)

_LEAST_STEPS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--data",
        default="digits",
        help="a folder of images of 32x32 pixels, in train and test, with a folder for each class, "
        "such as CIFAR-10-JPEG (digits)",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        type=file_path,
        help="directory of the runs and of the page, index.html; what is there is resumed",
    )
    parser.add_argument(
        "--budget",
        choices=("cpu", "gpu"),
        default="cpu",
        help="two hours on two cores, or an hour on a GPU with more variants (cpu)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="of a ViT from scratch; all other lengths follow (700, or 10,000 with --budget=gpu)",
    )
    add_seeds(parser)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints the verdicts and where the page is."""
    require_plots("miniature")
    from vit_jax.experiments.miniature.distances import measure
    from vit_jax.experiments.miniature.page import write_page
    from vit_jax.experiments.miniature.plan import miniature
    from vit_jax.experiments.paper.page import as_text
    from vit_jax.experiments.studies.page import as_page
    from vit_jax.experiments.studies.running import run_study

    if arguments.steps is not None and arguments.steps < _LEAST_STEPS:
        raise UserError(f"--steps={arguments.steps} must be at least {_LEAST_STEPS}")
    study = miniature(arguments.data, arguments.budget, arguments.steps, tuple(overrides))
    workdir = arguments.workdir.expanduser().absolute()
    results = run_study(study, workdir, arguments.seeds, show)
    command = [
        *("python", "-m", "vit_jax", "miniature", f"--data={arguments.data}"),
        *(f"--workdir={arguments.workdir}", f"--budget={arguments.budget}"),
        *([] if arguments.steps is None else [f"--steps={arguments.steps}"]),
        *(f"--seeds={','.join(map(str, arguments.seeds))}", *overrides),
    ]
    distances = measure(results, workdir, arguments.seeds)
    page = write_page(study, results, distances, workdir, arguments.seeds, shlex.join(command))
    show(f"\n{as_text(as_page(study, results))}\n\nthe page is {page}")
