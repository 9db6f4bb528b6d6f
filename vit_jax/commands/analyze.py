"""`analyze`: looks inside a model as the paper's figures do."""

import argparse
import json

from vit_jax import pictures
from vit_jax.commands.arguments import add_image_size
from vit_jax.commands.output import say
from vit_jax.commands.output_files import check_output, output_path, write_outputs
from vit_jax.errors import UserError
from vit_jax.plain import plain, plain_lines

_NAMES = """analyses of "An Image is Worth 16x16 Words" (arXiv 2010.11929v2):
  rollout     what the output sees of each image, Figures 6 and 14
  distance    how far each head of each block looks, in pixels, Figures 7 and 11
  filters     principal components of the patch filters, Figure 7
  positions   similarity of position embeddings, Figures 7 and 10"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.epilog = _NAMES
    parser.add_argument("name", metavar="NAME", help="see below")
    parser.add_argument(
        "--weights",
        required=True,
        help="a file, the directory of a run that has ended, the name of a released file, or "
        "hf://ORG/NAME[@REVISION] of the Hugging Face Hub",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        action="extend",
        help="files, folders (at any depth) or patterns, for rollout and distance",
    )
    add_image_size(parser, "that of the weights")
    parser.add_argument(
        "--output",
        required=True,
        type=output_path,
        metavar="FILE",
        help="a .png or .svg picture; its numbers go into a .json file beside it",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints a summary."""
    del overrides
    from vit_jax.commands.predict import list_files
    from vit_jax.experiments.analyses.analyses import ANALYSES
    from vit_jax.spelling import nearest
    from vit_jax.weights.catalogue.names import pinned
    from vit_jax.weights.load import load_model

    name, output = arguments.name, arguments.output
    if name not in ANALYSES:
        raise UserError(
            f"no analysis {name!r}; name one of {', '.join(ANALYSES)}{nearest(name, ANALYSES)}"
        )
    analysis = ANALYSES[name]
    if output.suffix not in pictures.SUFFIXES:
        raise UserError(f"--output={output}: name a .png or an .svg file")
    pictures.require_plots(f"--output={output}")
    check_output(output)
    if analysis.needs_images and not arguments.images:
        raise UserError(f"{name} looks at images: add --images=FOLDER")
    if arguments.images and not analysis.needs_images:
        raise UserError(f"--images would be ignored: {name} looks at the weights alone")
    notes: list[str] = []
    files = list_files(arguments.images or [], notes)
    weights = pinned(arguments.weights)
    result = analysis.run(load_model(weights=weights, image_size=arguments.image_size), files)
    content = pictures.as_bytes(result.draw(), output.suffix)
    made = {"analysis": name, "weights": weights}
    numbers = output.with_suffix(".json")
    text = json.dumps(made | result.numbers, ensure_ascii=False) + "\n"
    write_outputs({numbers: text.encode(errors="backslashreplace"), output: content})
    for line in result.summary:
        print(plain_lines(line))
    print(f"the picture is in {plain(str(output))}, its numbers in {plain(str(numbers))}")
    for note in notes:
        say(note)
