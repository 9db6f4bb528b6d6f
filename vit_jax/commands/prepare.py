"""`prepare`: writes a data set as ArrayRecord, from archives, folders, arrays or TFDS."""

import argparse
import os

from vit_jax.plain import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--dataset",
        required=True,
        help="imagenet2012 or imagenet21k, from downloaded archives; a folder or a table of "
        "images; an .npz file of arrays; a TFDS name, such as cifar10; or vtab:TASK",
    )
    parser.add_argument(
        "--data_dir",
        help="where to store it, on a disk or in a bucket (default: TFDS's own, "
        "~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--archives",
        metavar="DIR",
        help="where downloaded archives lie (default: downloads/manual in --data_dir)",
    )
    parser.add_argument(
        "--name",
        help="name of the data set that a folder, a table or an .npz file becomes (its own)",
    )
    parser.add_argument(
        "--short_side",
        type=int,
        metavar="PIXELS",
        help="reduce larger images to a shorter side of so many pixels, such as 256 or 512",
    )
    parser.add_argument(
        "--exclude",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="DATASET/SPLIT,...",
        help="test sets whose images are left out, found by a perceptual hash; such as "
        "imagenet2012/validation,cifar10/test",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="processes that read and write (default: one for each processor)",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints the directory of the data set."""
    from vit_jax.data.preparation.prepare import prepare

    del overrides  # There is no --config to override.
    print(
        plain(
            prepare(
                arguments.dataset,
                arguments.data_dir,
                archives=arguments.archives,
                name=arguments.name,
                short_side=arguments.short_side,
                exclude=arguments.exclude,
                workers=arguments.workers,
            )
        )
    )
