"""`describe`: shows what a config or a model is, before anything is trained."""

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vit_jax.commands.arguments import add_image_size
from vit_jax.config import load_config
from vit_jax.errors import NoDataError, UserError
from vit_jax.plain import plain
from vit_jax.schema import build

if TYPE_CHECKING:
    from vit_jax.data.sources.records import Source
    from vit_jax.models.config import ModelConfig
    from vit_jax.training.config import TrainConfig
    from vit_jax.training.setup import Setup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--config",
        metavar="FILE.py[:ARGUMENT]",
        help="model, recipe and a batch of a config; --config.SECTION.KEY=VALUE changes a value",
    )
    parser.add_argument("--model", help="a model by name, such as ViT-B/16, without a config")
    add_image_size(parser, "224; only with --model")


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    from vit_jax.models.config import ModelConfig
    from vit_jax.training.choices import complete
    from vit_jax.training.config import TrainConfig

    if (arguments.config is None) == (arguments.model is None):
        raise UserError("describe needs either --config or --model")
    if arguments.model is not None:
        if overrides:
            raise UserError(f"{overrides[0]!r} would be ignored: it needs --config")
        size = arguments.image_size or 224
        _print_model(ModelConfig(name=arguments.model, image_size=size, num_classes=1000))
        return
    if arguments.image_size is not None:
        raise UserError("--image_size would be ignored: use --config.model.image_size")
    values = complete(load_config(arguments.config, overrides))
    _describe_run(build(TrainConfig, values))


def _describe_run(config: "TrainConfig") -> None:
    """Prints the model, the recipe and the first batch of a config.

    Missing data is replaced by its published sizes, and there is no batch. Missing weights and
    devices are stated.
    """
    import jax

    from vit_jax.experiments.recipe import recipe_rows
    from vit_jax.experiments.sized import open_sized
    from vit_jax.parallel.mesh import MeshConfig, make_mesh
    from vit_jax.training.setup import assemble

    config, source, missing, start = open_sized(config)
    _check_evaluations(config)
    setup = assemble(config, make_mesh(MeshConfig(), jax.devices()[:1]), source)
    _print_model(setup.model)
    rows = [*recipe_rows(setup), ("starts from", start), ("mesh", _mesh_of(config))]
    _print_table("recipe", rows)
    _print_memory(config, source)
    if missing is None:
        _print_batch(setup)
    else:
        published = "the numbers of examples and classes are the published ones"
        print(f"\nno batch: {plain(missing)}; {published}")


def _check_evaluations(config: "TrainConfig") -> None:
    """Checks the evaluations whose data are at hand or have a published size."""
    from vit_jax.data.sources.published import check_split
    from vit_jax.training.setup import open_evaluation

    for evaluation in config.evals.values():
        try:
            open_evaluation(config.data, evaluation)
        except NoDataError as error:
            dataset = evaluation.dataset or config.data.dataset
            if not check_split(dataset, evaluation.split) and not error.is_registered:
                raise


def _mesh_of(config: "TrainConfig") -> str:
    from vit_jax.parallel.mesh import make_mesh
    from vit_jax.training.devices import check_devices

    try:
        mesh = make_mesh(config.mesh)
        check_devices(config, mesh)
    except UserError as error:
        return f"not on this machine: {error}"
    return ", ".join(f"{axis} {number}" for axis, number in mesh.shape.items())


def _print_memory(config: "TrainConfig", source: "Source") -> None:
    """Prints what the step needs of the devices at hand, if they can split it."""
    import jax

    from vit_jax.experiments.planning.settings import Candidates
    from vit_jax.experiments.planning.text import memory_rows

    devices = jax.devices()
    try:
        candidates = Candidates(config, source, devices)
        memory = candidates.estimate(candidates.own).memory
    except UserError:
        print("\nfor memory on other devices than these: python -m vit_jax plan --topology=NAME")
        return
    each = f"of each of {len(devices)} devices" if len(devices) > 1 else "of the device"
    _print_table(
        f"memory {each}, estimated without compiling (`plan` compiles)", memory_rows(memory)
    )


def _print_model(model: "ModelConfig") -> None:
    from vit_jax.analysis.activations import block_bytes
    from vit_jax.analysis.macs import count_macs, count_params

    _print_table(f"model {model.name}", _shape(model))
    params, macs, kept = count_params(model), count_macs(model), block_bytes(model)
    parts = [
        (part, f"{params[part]:>14,} {macs.get(part, 0) / 1e9:>14.4f} G {_mib(kept.get(part)):>18}")
        for part in params
    ]
    total = f"{sum(params.values()):>14,} {sum(macs.values()) / 1e9:>14.4f} G"
    heads = f"{'parameters':>14} {'multiply-adds':>16} {'activations':>18}"
    _print_table(
        "for one image; activations: what one block keeps for the backward pass",
        [("", heads), *parts, ("total", total)],
    )


def _mib(number: int | None) -> str:
    return "" if number is None else f"{number / 2**20:.2f} MiB a block"


def _shape(model: "ModelConfig") -> list[tuple[str, str]]:
    from vit_jax.models.config import family_of

    (height, width), (rows, columns) = model.input_size, model.grid
    places = "positions" if model.blocks is None else "patches"
    lines = [("image", f"{height}x{width} pixels, {rows}x{columns} {places}")]
    lines += family_of(model).description(model)
    tokens = [f"{rows * columns} {places}"]
    tokens += ["class token"] if model.has_class_token else []
    tokens += [f"{model.registers} registers"] if model.registers else []
    lines.append(("sequence length", f"{model.sequence_length} ({' + '.join(tokens)})"))
    return [*lines, ("classes", f"{model.num_classes}")]


def _print_batch(setup: "Setup") -> None:
    import numpy as np

    from vit_jax.training.setup import make_loader

    with make_loader(setup, start=0) as loader:
        batch = next(loader)
    rows = [
        (
            name,
            f"{array.dtype}{list(array.shape)}, {float(array.min()):g} to {float(array.max()):g}",
        )
        for name, array in batch.items()
    ]
    labels = np.asarray(batch["labels"])
    seen = np.unique(labels[labels >= 0])
    rows.append(("classes seen", f"{len(seen)} of {setup.model.num_classes}"))
    if labels.ndim == 2:
        rows.append(("labels an image", f"{(labels >= 0).sum(axis=1).mean():.2f}"))
    _print_table("first batch", rows)


def _print_table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    print(f"\n{plain(title)}")
    for name, text in rows:
        print(f"  {plain(name):<18}{plain(text)}")
