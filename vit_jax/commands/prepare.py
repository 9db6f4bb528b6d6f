"""`prepare`: a TFDS data set, downloaded and stored as ArrayRecord."""

import argparse

from vit_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--dataset", required=True, help="a TFDS name, such as cifar10 or imagenet2012"
    )
    parser.add_argument(
        "--data_dir", help="where to store it (default: TFDS's own, ~/tensorflow_datasets)"
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints where the data set lies."""
    from vit_jax.data.sources.open import is_folder
    from vit_jax.data.sources.tfds import prepare

    del overrides  # It has no --config, so there are none.
    if is_folder(arguments.dataset):
        raise UserError(
            f"--dataset={arguments.dataset}: a folder needs no preparation; train on it"
        )
    print(prepare(arguments.dataset, arguments.data_dir))
