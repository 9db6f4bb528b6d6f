"""`convert`: a weight file in another layout, at another image size, or as a program to serve."""

import argparse
import os

from vit_jax.commands.arguments import file_path, image_size
from vit_jax.errors import UserError

LAYOUTS = ("google", "timm", "huggingface", "stablehlo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--source",
        required=True,
        help="a file, the directory of a run that has ended, or the name of a released file",
    )
    parser.add_argument(
        "--target",
        required=True,
        type=file_path,
        help="the new file: .npz for google, .safetensors for timm and huggingface (called "
        "model.safetensors it gets the hub's config.json too), .stablehlo for stablehlo",
    )
    parser.add_argument("--layout", required=True, choices=LAYOUTS, help="names and format")
    parser.add_argument(
        "--image_size",
        type=image_size,
        help="pixels, or HEIGHTxWIDTH, to which positions are resized (that of the source)",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints what was written."""
    from vit_jax.inference.export import export_model
    from vit_jax.models.functional import model_params
    from vit_jax.weights.files import descriptions_of, write_weights
    from vit_jax.weights.load import load_model

    del overrides  # It has no --config, so there are none.
    target = arguments.target
    for path in (target, *descriptions_of(target)):
        if os.path.exists(path):
            raise UserError(f"--target={target}: {path} exists already; choose another name")
    model = load_model(weights=arguments.source, image_size=arguments.image_size)
    try:
        if arguments.layout == "stablehlo":
            export_model(model, target)
        else:
            write_weights(
                target,
                model_params(model),
                model.config,
                layout=arguments.layout,
                class_names=model.class_names,
                extra={} if model.loss is None else {"loss": model.loss},
            )
    except OSError as error:
        raise UserError(f"--target={target}: {error.strerror}; choose another place") from error
    height, width = model.config.input_size
    print(f"{target}: {model.config.name} at {height}x{width} pixels, layout {arguments.layout}")
