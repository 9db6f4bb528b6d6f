"""`convert`: a weight file in another layout, at another image size, or as a program to serve."""

import argparse
import os

from vit_jax.commands.arguments import add_image_size
from vit_jax.commands.output_files import check_output, output_path, refuse_bucket
from vit_jax.errors import StorageError, UserError
from vit_jax.plain import plain
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket


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
        help="a weight file, the directory of a finished run, the name of a released file, or "
        "hf://ORG/NAME[@REVISION] of the Hugging Face Hub",
    )
    parser.add_argument(
        "--target",
        required=True,
        type=output_path,
        help=f"path of the new file ({endings}); if it is named model.safetensors, a config.json "
        "for the Hugging Face Hub and a model card (README.md) are written beside it",
    )
    parser.add_argument(
        "--layout",
        required=True,
        choices=list(suffixes),
        help="names and format of the new file",
    )
    add_image_size(parser, "that of the source; otherwise positions are resized")
    parser.add_argument(
        "--license",
        metavar="ID",
        help="licence of the weights for the model card, an identifier of the Hugging Face Hub "
        "such as apache-2.0 (unknown)",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints what was written."""
    from vit_jax.inference.export import export_model, export_names, taken_images
    from vit_jax.models.functional import model_params
    from vit_jax.weights.card import (
        LIBRARIES,
        UNKNOWN_LICENCE,
        model_card,
        origin_of,
        require_licence,
    )
    from vit_jax.weights.catalogue.names import pinned, resolve
    from vit_jax.weights.files import HUB_FILE, descriptions_of, open_weights, write_weights
    from vit_jax.weights.load import load_model

    del overrides  # The command has no --config, so there are none.
    target = arguments.target
    for path in (target, *descriptions_of(target)):
        if objects.exists(path) if is_bucket(path) else os.path.exists(path):
            raise UserError(f"--target={target}: {path} exists already; choose another name")
    if arguments.layout in export_names():
        refuse_bucket(target, "target", "an exported program is written to a disk")
    check_output(target, "target")
    has_card = target.name == HUB_FILE and arguments.layout in LIBRARIES
    if arguments.license is not None:
        if not has_card:
            raise UserError(
                f"--license={arguments.license} would be ignored: only a --target that is named "
                f"{HUB_FILE}, in the layout {' or '.join(LIBRARIES)}, has a model card"
            )
        require_licence(arguments.license)
    arguments.source = pinned(arguments.source)
    source = resolve(arguments.source)
    model = load_model(weights=source, image_size=arguments.image_size)
    card = None
    if has_card:
        origin = origin_of(arguments.source, open_weights(source, arguments.image_size))
        card = model_card(
            model.config,
            model.class_names,
            model.loss,
            origin,
            layout=arguments.layout,
            licence=arguments.license or UNKNOWN_LICENCE,
        )
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
                card=card,
            )
    except StorageError:
        raise
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
