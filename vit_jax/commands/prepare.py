"""`prepare`: downloads a TFDS data set and stores it as ArrayRecord."""

import argparse

from vit_jax.plain import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--dataset",
        required=True,
        help="a TFDS name, such as cifar10 or imagenet2012, or vtab:TASK",
    )
    parser.add_argument(
        "--data_dir", help="where to store it (default: TFDS's own, ~/tensorflow_datasets)"
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints the directory of the data set."""
    from vit_jax.data.preparation.prepare import prepare

    del overrides  # There is no --config to override.
    print(plain(prepare(arguments.dataset, arguments.data_dir)))
