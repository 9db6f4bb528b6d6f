"""`convert`: a weight file in another layout, at another image size, or as a program to serve."""

import argparse
import os

from vit_jax.commands.arguments import add_image_size, file_path
from vit_jax.errors import UserError
from vit_jax.plain import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    from vit_jax.inference.export import export_named, export_names
    from vit_jax.weights.layouts.registry import layout_named, layout_names

    suffixes = {name: layout_named(name).suffix for name in layout_names()}
    suffixes |= {name: export_named(name).suffix for name in export_names()}
    endings = ", ".join(f"{suffix} for {name}" for name, suffix in suffixes.items())
    parser.add_argument(
        "--source",
        required=True,
        help="a weight file, the directory of a finished run, or the name of a released file",
    )
    parser.add_argument(
        "--target",
        required=True,
        type=file_path,
        help=f"path of the new file ({endings}); if it is named model.safetensors, a config.json "
        "for the Hugging Face Hub is written beside it",
    )
    parser.add_argument(
        "--layout",
        required=True,
        choices=list(suffixes),
        help="names and format of the new file",
    )
    add_image_size(parser, "that of the source; otherwise positions are resized")


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints what was written."""
    from vit_jax.inference.export import export_model, export_names, taken_images
    from vit_jax.models.functional import model_params
    from vit_jax.weights.files import descriptions_of, write_weights
    from vit_jax.weights.load import load_model

    del overrides  # The command has no --config, so there are none.
    target = arguments.target
    for path in (target, *descriptions_of(target)):
        if os.path.exists(path):
            raise UserError(f"--target={target}: {path} exists already; choose another name")
    model = load_model(weights=arguments.source, image_size=arguments.image_size)
    try:
        if arguments.layout in export_names():
            export_model(model, target, arguments.layout)
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
    size = f"{height}x{width} pixels"
    print(f"{plain(str(target))}: {model.config.name} at {size}, layout {arguments.layout}")
    if arguments.layout in export_names():
        taken = taken_images(model)
        shape = ", ".join(map(str, taken["shape"]))
        low, high = taken["range"]
        print(
            f"  takes {taken['dtype']} [{shape}] ({taken['layout']}, {taken['channels']}) from "
            f"{low} to {high}, as vit_jax.preprocess(images, model, normalized=False) gives them"
        )
