"""`models`: lists the named models and the released weight files."""

import argparse
import dataclasses
import textwrap
from typing import TYPE_CHECKING, Any

from vit_jax.errors import UserError
from vit_jax.plain import plain

if TYPE_CHECKING:
    from vit_jax.weights.catalogue.released import Release

_NOTE = """
Every other file name of AugReg works too. augreg/MODEL, such as augreg/B_16, is the best file that
was pre-trained on ImageNet-21k; augreg/MODEL--DATASET-res_PIXELS is the best fine-tuned from it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--filter",
        default="",
        metavar="TEXT",
        help="list only names that contain this; case does not matter, and /, _ and - are equal",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints two tables."""
    from vit_jax.models import list_models
    from vit_jax.weights.catalogue.names import matches, releases

    del overrides  # The command has no --config, so there are none.
    models = [name for name in list_models() if matches(name, arguments.filter)]
    files = releases(arguments.filter)
    if not models and not files:
        raise UserError(
            f"--filter={arguments.filter}: no model and no released file has this in its name; "
            "list all without --filter"
        )
    if models:
        print("models")
        print(textwrap.indent(textwrap.fill(", ".join(models), 98, break_on_hyphens=False), "  "))
    if models and files:
        print()
    if files:
        print("released files; top-1 in percent on ImageNet")
        print(_row("parameters", "pixels", "classes", "top-1", "source", "name"))
    for release in files:
        print(_describe(release))
    if any(release.collection == "augreg" for release in files):
        print(_NOTE)


def _describe(release: "Release") -> str:
    return _row(
        _number(_count_params(release)),
        _number(release.resolution),
        _number(release.num_classes),
        "-" if release.accuracy is None else f"{release.accuracy:.2f}",
        release.accuracy_source or "-",
        plain(release.name),
    )


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _row(parameters: str, pixels: str, classes: str, top1: str, source: str, name: str) -> str:
    return f"  {parameters:>13} {pixels:>7} {classes:>8} {top1:>6}  {source:<44} {name}"


def _count_params(release: "Release") -> int | None:
    """Parameters of the file's model; None if they cannot be counted."""
    from vit_jax.analysis.macs import count_params
    from vit_jax.models import ModelConfig

    if release.num_classes is None:
        return None
    # A ResNet's parameters do not depend on the resolution, which is unknown for some files.
    options: dict[str, Any] = {"image_size": release.resolution} if release.resolution else {}
    options |= {"pooling": release.pooling} if release.pooling != "token" else {}
    try:
        config = ModelConfig(name=release.model, num_classes=release.num_classes, **options)
    except UserError:
        return None
    if release.resolution is None and config.family != "resnet":
        return None
    if release.has_pre_logits:
        config = dataclasses.replace(config, representation_size=config.size.width)
    return sum(count_params(config).values())
