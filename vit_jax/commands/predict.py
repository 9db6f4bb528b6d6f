"""`predict`: prints the classes of images as a weight file, a run or a released model sees them."""

import argparse
import contextlib
import csv
import glob
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vit_jax.commands.arguments import add_image_size, check_output, file_path
from vit_jax.commands.output import say
from vit_jax.errors import UserError
from vit_jax.plain import cell, plain

if TYPE_CHECKING:
    from vit_jax.inference.prediction import Prediction

    Writer = Callable[[Prediction], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--weights",
        required=True,
        help="a file, the directory of a run that has ended, or the name of a released file",
    )
    parser.add_argument(
        "--images",
        required=True,
        nargs="+",
        action="extend",
        help="files, folders (at any depth) or patterns",
    )
    parser.add_argument("--top_k", type=int, help="classes an image (5, or all of fewer)")
    parser.add_argument("--batch_size", type=int, default=32, help="images at a time (32)")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode (0: threads)")
    add_image_size(parser, "that of the weights")
    parser.add_argument(
        "--class_names", type=file_path, help="a text file, one name a line (those of the weights)"
    )
    parser.add_argument(
        "--output",
        type=file_path,
        help="FILE.csv or FILE.jsonl; without it, readable lines are printed",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints at the end what was left out or could not be read."""
    from vit_jax.inference.prediction import predict
    from vit_jax.weights.classes import read_class_names
    from vit_jax.weights.load import load_model

    del overrides  # It has no --config, so there are none.
    if arguments.output is not None and arguments.output.suffix not in (".csv", ".jsonl"):
        raise UserError(f"--output={arguments.output}: name a .csv or a .jsonl file")
    notes: list[str] = []
    files = list_files(arguments.images, notes)
    model = load_model(weights=arguments.weights, image_size=arguments.image_size)
    names = model.class_names
    if arguments.class_names is not None:
        names = read_class_names(arguments.class_names, model.config.num_classes or 0)
    predictions = predict(
        model,
        files,
        top_k=arguments.top_k,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
    )
    unreadable = 0
    with _writer(arguments.output) as file:
        write = _FORMATS[arguments.output.suffix if arguments.output else None](file, names)
        for prediction in _with_progress(predictions, len(files), arguments.output is not None):
            write(prediction)
            unreadable += prediction.error is not None
    for note in notes:
        say(note)
    if unreadable:
        say(f"{unreadable} of {len(files)} images could not be read")


def list_files(arguments: Sequence[str], notes: list[str] | None = None) -> list[str]:
    """Lists the image files that files, folders and patterns name, in the given order.

    Args:
      notes: gets a line for each folder in which files without an image lie.

    Raises:
      UserError: one of them names no image.
    """
    from vit_jax.data.sources.listing import LeftOut, list_images

    files: list[str] = []
    for argument in arguments:
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", argument):
            raise UserError(
                f"--images={argument}: URLs are not taken; download the images and name the files"
            )
        path = os.path.expanduser(argument)
        left_out = LeftOut()
        if os.path.isdir(path):
            found = list_images(path, left_out)
            if notes is not None and str(left_out):
                notes.append(f"--images={argument}: left out {left_out}")
        elif os.path.lexists(path):  # A link that leads nowhere gets its own line.
            found = [path]
        else:
            found = sorted(p for p in glob.glob(path, recursive=True) if not os.path.isdir(p))
        if not found:
            raise UserError(f"--images={argument}: no such image; check the path")
        files += found
    return files


def _name(names: tuple[str, ...] | None, label: int) -> str:
    return str(label) if names is None else names[label]


def _csv(file: IO[str], names: tuple[str, ...] | None) -> "Writer":
    """Writes a row for each class of an image, or one row with the error of an unreadable one."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "name", "probability", "error"])

    def write(prediction: "Prediction") -> None:
        if prediction.error is not None:
            writer.writerow([cell(prediction.image), "", "", "", "", cell(prediction.error)])
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        for rank, (label, share) in enumerate(pairs, 1):
            row = [cell(prediction.image), rank, label, cell(_name(names, label))]
            writer.writerow([*row, f"{share:.6f}", ""])

    return write


def _json_lines(file: IO[str], names: tuple[str, ...] | None) -> "Writer":
    def write(prediction: "Prediction") -> None:
        line: dict[str, object] = {"image": prediction.image}
        if prediction.error is not None:
            line["error"] = prediction.error
        else:
            pairs = zip(prediction.classes, prediction.probabilities, strict=True)
            line["predictions"] = [
                {"class": label, "name": _name(names, label), "probability": round(share, 6)}
                for label, share in pairs
            ]
        file.write(json.dumps(line, ensure_ascii=False) + "\n")

    return write


def _readable(file: IO[str], names: tuple[str, ...] | None) -> "Writer":
    def write(prediction: "Prediction") -> None:
        file.write(f"{plain(prediction.image)}\n")
        if prediction.error is not None:
            file.write(f"  {plain(prediction.error)}\n")
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        for label, share in pairs:
            shown = f"  {plain(names[label])}" if names else ""
            file.write(f"  {share:7.2%}  {label:>5}{shown}\n")

    return write


_FORMATS = {".csv": _csv, ".jsonl": _json_lines, None: _readable}


@contextlib.contextmanager
def _writer(output: Path | None) -> Iterator[IO[str]]:
    """Opens standard output, or a file that appears when it is complete."""
    # Names of files need not be text; in JSON these escapes are the standard ones.
    errors = "backslashreplace"
    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors=errors)
        yield sys.stdout
        return
    check_output(output)
    partial = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "w", encoding="utf-8", errors=errors, newline="") as file:
            yield file
        os.replace(partial, output)
    except OSError as error:
        raise UserError(f"--output={output}: {error.strerror}; choose another file") from error
    finally:
        with contextlib.suppress(OSError):  # It may not even have been possible.
            partial.unlink()


def _with_progress(
    predictions: "Iterator[Prediction]", total: int, shown: bool
) -> "Iterator[Prediction]":
    from tqdm import tqdm

    return iter(tqdm(predictions, total=total, unit="img", disable=not shown or None))
