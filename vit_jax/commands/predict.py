"""`predict`: prints the classes of images as a weight file, a run or a released model sees them."""

import argparse
import functools
import glob
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_jax.commands.arguments import add_image_size, file_path
from vit_jax.commands.maps import AttentionMaps
from vit_jax.commands.output import say
from vit_jax.commands.output_files import output_path, refuse_bucket
from vit_jax.commands.results import Names, Results
from vit_jax.errors import UserError
from vit_jax.plain import plain
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path, is_bucket
from vit_jax.version import __version__

if TYPE_CHECKING:
    from vit_jax.inference.prediction import Prediction
    from vit_jax.models.model import Model


# Arguments that `__main__` hands to `run` as they are.
OVERRIDES = ("--embed.",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--weights",
        required=True,
        help="a file, the directory of a run that has ended, the name of a released file, or "
        "hf://ORG/NAME[@REVISION] of the Hugging Face Hub",
    )
    parser.add_argument(
        "--images",
        required=True,
        nargs="+",
        action="extend",
        help="files, folders (at any depth), on a disk or in a bucket, or patterns",
    )
    parser.add_argument("--top_k", type=int, help="classes an image (5, or all of fewer)")
    parser.add_argument(
        "--batch_size", type=int, help="images at a time (32 a device, or fewer if they do not fit)"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that decode (0: threads)")
    add_image_size(parser, "that of the weights")
    parser.add_argument(
        "--class_names", type=file_path, help="a text file, one name a line (those of the weights)"
    )
    parser.add_argument(
        "--output",
        type=output_path,
        help="FILE.csv or FILE.jsonl, written image by image: the same command resumes what was "
        "stopped; without it, readable lines are printed",
    )
    parser.add_argument(
        "--attention_maps",
        type=output_path,
        metavar="DIR",
        help="write each image as the model sees it, dark where it does not look",
    )
    parser.add_argument(
        "--embed",
        type=output_path,
        metavar="FILE",
        help="write features in place of classes: FILE.npz or FILE.parquet; --embed.tokens=pooled "
        "|class|mean|patches, --embed.blocks=N and --embed.norm=false choose them",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints at the end what was left out or could not be read."""
    if overrides and arguments.embed is None:
        raise UserError(f"{overrides[0]!r} would be ignored: it needs --embed")
    if arguments.output is not None and arguments.output.suffix not in (".csv", ".jsonl"):
        raise UserError(f"--output={arguments.output}: name a .csv or a .jsonl file")
    if arguments.output is not None:
        refuse_bucket(
            arguments.output, "output", "it is written image by image, as no object of a bucket is"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):  # Names of files need not be text.
        sys.stdout.reconfigure(errors="backslashreplace")
    from vit_jax.weights.catalogue.names import pinned

    notes: list[str] = []
    files = list_files(arguments.images, notes)
    arguments.weights = pinned(arguments.weights)
    if arguments.embed is not None:
        from vit_jax.commands.embedding import write_features

        unreadable = write_features(arguments, overrides, files)
    else:
        unreadable = _name_classes(arguments, files)
    for note in notes:
        say(note)
    if unreadable:
        say(f"{unreadable} of {len(files)} images could not be read")


def _name_classes(arguments: argparse.Namespace, files: list[str]) -> int:
    """Writes or prints the classes; returns how many images could not be read."""
    from vit_jax.inference.prediction import predict, require_classes
    from vit_jax.weights.classes import read_class_names
    from vit_jax.weights.load import load_model

    maps = None
    if arguments.attention_maps is not None:
        maps = AttentionMaps(arguments.attention_maps, arguments.images, files)
    model = load_model(weights=arguments.weights, image_size=arguments.image_size)
    names = model.class_names
    if arguments.class_names is not None:
        names = read_class_names(arguments.class_names, model.config.num_classes or 0)
    top_k = require_classes(model, arguments.top_k)
    ask = functools.partial(
        predict,
        model,
        top_k=top_k,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        attention=maps is not None,
    )
    ask([])  # What cannot be answered is refused before a file is written.
    if arguments.output is None:
        unreadable = 0
        for prediction in ask(files):
            _write_map(maps, prediction)
            _print(prediction, names)
            unreadable += prediction.error is not None
        return unreadable
    made_by = _made_by(arguments, model, names, top_k)
    with Results.open(Path(arguments.output), made_by, names) as to:
        missing = to.missing(files)
        done = len(files) - len(missing)
        if done:
            say(f"{arguments.output} has {done} of {len(files)} images already")
        try:
            for prediction in _with_progress(ask(missing), len(files), done):
                _write_map(maps, prediction)  # First, so that each row's image has its map.
                to.write(prediction)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"the same command resumes {arguments.output}") from None
        return to.unreadable


def _made_by(
    arguments: argparse.Namespace, model: "Model", names: Names, top_k: int
) -> dict[str, Any]:
    from vit_jax.inference.prediction import digest

    maps = arguments.attention_maps
    height, width = model.config.input_size
    return {
        "weights": arguments.weights,
        "version": __version__,
        "image_size": f"{height}x{width}",
        "top_k": top_k,
        "class_names": None if names is None else _digest_of(names),
        "attention_maps": None if maps is None else os.fspath(as_path(maps)),
        "model": digest(model),
    }


def _digest_of(names: Sequence[str]) -> str:
    return hashlib.blake2b(
        "\0".join(names).encode(errors="backslashreplace"), digest_size=16
    ).hexdigest()


def _write_map(maps: AttentionMaps | None, prediction: "Prediction") -> None:
    if maps is not None and prediction.seen is not None:
        maps.write(prediction.image, prediction.seen)


def list_files(arguments: Sequence[str], notes: list[str] | None = None) -> list[str]:
    """Lists the image files that files, folders and patterns name, in the given order.

    Args:
      notes: gets a line for each folder in which files without an image lie.

    Raises:
      UserError: one of them names no image.
    """
    from vit_jax.data.sources import bucket_folder
    from vit_jax.data.sources.listing import LeftOut, list_images

    files: list[str] = []
    for argument in arguments:
        if is_bucket(argument):
            path = _in_bucket(argument)
            is_folder = bucket_folder.is_folder(path)
        elif re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", argument):
            raise UserError(
                f"--images={argument}: URLs are not taken; download the images and name the files"
            )
        else:
            path = os.path.expanduser(argument)
            is_folder = os.path.isdir(path)
        left_out = LeftOut()
        if is_folder:
            found = list_images(path, left_out)
            if notes is not None and str(left_out):
                notes.append(f"--images={argument}: left out {left_out}")
        elif is_bucket(path):
            found = [path] if objects.exists(path) else []
        elif os.path.lexists(path):  # A link that leads nowhere gets its own line.
            found = [path]
        else:
            found = sorted(p for p in glob.glob(path, recursive=True) if not os.path.isdir(p))
        if not found:
            raise UserError(f"--images={argument}: no such image; check the path")
        files += found
    return files


def _in_bucket(argument: str) -> str:
    """The address of a folder or an image; refuses a pattern."""
    if magic := re.search(r"[*?[]", argument):
        folder = os.path.dirname(argument[: magic.start()])
        raise UserError(
            f"--images={argument}: patterns are not taken in a bucket; name a folder, such as "
            f"{folder}"
        )
    return os.fspath(as_path(argument)).rstrip("/")


def _print(prediction: "Prediction", names: Names) -> None:
    print(plain(prediction.image))
    if prediction.error is not None:
        print(f"  {plain(prediction.error)}")
    pairs = zip(prediction.classes, prediction.probabilities, strict=True)
    for label, share in pairs:
        shown = f"  {plain(names[label])}" if names else ""
        print(f"  {share:7.2%}  {label:>5}{shown}")
    sys.stdout.flush()  # Images come slowly on a CPU, and a kill loses what is kept back.


def _with_progress(
    predictions: "Iterator[Prediction]", total: int, done: int
) -> "Iterator[Prediction]":
    from tqdm import tqdm

    return iter(tqdm(predictions, total=total, initial=done, unit="img", disable=None))
