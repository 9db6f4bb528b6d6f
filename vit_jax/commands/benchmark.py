"""`benchmark`: times training, inference or input, and finds what fits."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from vit_jax import pictures
from vit_jax.commands.arguments import image_size
from vit_jax.commands.output import say, show
from vit_jax.commands.output_files import (
    check_folder,
    check_output,
    output_path,
    write_outputs,
)
from vit_jax.commands.processes import add_process_flags, fail_together, join
from vit_jax.config import load_config
from vit_jax.errors import UserError

if TYPE_CHECKING:
    from etils import epath

    from vit_jax.experiments.benchmark.running import Report
    from vit_jax.experiments.paper.page import Page

_T = TypeVar("_T")

_KINDS = """what is timed:
  train      the training step of a config, or of models by name
  inference  the forward pass
  input      reading, decoding, cropping and augmenting of a config's or a folder's images"""

# Flags of some kinds only.
_ONLY = {
    "vary": ("train", "inference"),
    "largest": ("train", "inference"),
    "distributed": ("train", "inference"),
    "coordinator_address": ("train", "inference"),
    "dataset": ("input",),
    "workers": ("input",),
    "rate": ("input",),
}

_MODEL = "ViT-B/16"
# Images on each device in a step of a model without a config.
_BATCH_ON_CPU, _BATCH = 8, 128
# Images in a batch of input without a config.
_INPUT_BATCH = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.epilog = _KINDS
    parser.add_argument(
        "kind", choices=("train", "inference", "input"), metavar="KIND", help="see below"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--config",
        metavar="FILE.py[:ARGUMENT]",
        help="as for train. Neither data nor weights are needed: data sets of the paper have their "
        "published sizes. --config.SECTION.KEY=VALUE changes a value, with --model too",
    )
    what.add_argument(
        "--model",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="models by name, such as ViT-B/16 (the default), with 1,000 classes and AdamW",
    )
    parser.add_argument(
        "--batch_sizes",
        type=_list_of(_positive),
        default=(),
        metavar="N,N,…",
        help=f"images of a step over all devices (that of the config; with --model {_BATCH} a "
        f"device, {_BATCH_ON_CPU} on CPUs)",
    )
    parser.add_argument(
        "--image_sizes",
        type=_list_of(image_size),
        default=(),
        metavar="PIXELS|HEIGHTxWIDTH,…",
        help="such as 64,128,224 or 384x512 (that of the config; with --model 224)",
    )
    parser.add_argument(
        "--vary",
        type=_varied,
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE,…",
        help="values of a config's key that are compared, such as model.remat=none,dots,block; may "
        "be given several times",
    )
    parser.add_argument(
        "--largest",
        action="store_true",
        help="find the largest batch that fits too, at each image size",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME|FOLDER",
        help="of input without a config: a folder, a table, tars or a TFDS name, as config.data."
        "dataset; images:FOLDER are images without labels",
    )
    parser.add_argument(
        "--workers",
        type=_list_of(_count),
        metavar="N,N,…",
        help="of input: processes that decode, 0 for threads (0, and powers of 2 up to the cores)",
    )
    parser.add_argument(
        "--rate",
        metavar="IMG_PER_S|FILE.json",
        help="of input: images a second that a device trains, stated or as benchmark train "
        "--output=FILE.json measured them, for the number of cores that it needs",
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=1.0, help="that a round takes about (1)"
    )
    parser.add_argument(
        "--rounds", type=_positive, default=5, help="of which medians and quartiles are taken (5)"
    )
    parser.add_argument(
        "--output",
        type=output_path,
        metavar="FILE",
        help="a .json file for the numbers, or a .png or .svg picture; the numbers of a picture go "
        "into a .json file beside it",
    )
    add_process_flags(parser)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command; prints what was measured, when it is interrupted too."""
    for flag, kinds in _ONLY.items():
        if getattr(arguments, flag) and arguments.kind not in kinds:
            raise UserError(f"--{flag} would be ignored: it is for benchmark {' and '.join(kinds)}")
    _check_output(arguments.output)
    if arguments.kind == "input":
        _run_input(arguments, overrides)
        return
    with fail_together():
        join(arguments)
        _run_speeds(arguments, overrides)


def _run_speeds(arguments: argparse.Namespace, overrides: list[str]) -> None:
    import jax

    from vit_jax.experiments.benchmark.running import Grid, Report, run
    from vit_jax.experiments.benchmark.workloads import Workload, varied
    from vit_jax.parallel.agreement import on_all_processes

    is_first = jax.process_index() == 0
    keys = dict(arguments.vary)
    with on_all_processes():
        variants = [
            variant for values in _configs(arguments, overrides) for variant in varied(values, keys)
        ]
        grid = Grid(
            [Workload(variant) for variant in variants],
            arguments.image_sizes,
            arguments.batch_sizes,
            finds_largest=arguments.largest,
        )
        grid.check()
    report = Report(arguments.kind, arguments.seconds, arguments.rounds)
    for missing in {workload.missing: None for workload in grid.workloads if workload.missing}:
        if is_first:
            say(f"{missing}; the numbers of examples and classes are the published ones")
    try:
        run(grid, report, say if is_first else lambda line: None)
    finally:
        if is_first and not report.is_empty:
            _publish(report, arguments.output)


def _configs(arguments: argparse.Namespace, overrides: list[str]) -> list[dict[str, Any]]:
    """The config, or one for each model."""
    import jax

    from vit_jax.config import apply_overrides
    from vit_jax.experiments.benchmark.workloads import values_of

    if arguments.config is not None:
        return [load_config(arguments.config, overrides)]
    devices = jax.devices()
    each = _BATCH_ON_CPU if devices[0].platform == "cpu" else _BATCH
    models = dict.fromkeys(arguments.model or [_MODEL])
    return [apply_overrides(values_of(name, each * len(devices)), overrides) for name in models]


def _publish(report: Report, output: epath.Path | None) -> None:
    """Prints the tables of training or inference, and writes the file if one is wanted."""
    from vit_jax.experiments.benchmark.page import as_values, pages, title
    from vit_jax.experiments.benchmark.picture import draw, is_drawable

    values = as_values(report)
    drawing = None
    if is_drawable(values):
        drawing = functools.partial(draw, values, title=title(report))
    _write(pages(report), values, drawing, output)


def _run_input(arguments: argparse.Namespace, overrides: list[str]) -> None:
    from vit_jax.experiments.benchmark.input import open_input, run_input, worker_counts
    from vit_jax.experiments.benchmark.input_page import as_values, draw, pages
    from vit_jax.experiments.benchmark.rates import read_rates
    from vit_jax.schema import build
    from vit_jax.training.choices import complete
    from vit_jax.training.config import TrainConfig

    rates = read_rates(arguments.rate) if arguments.rate else {}
    config = build(TrainConfig, complete(_input_values(arguments, overrides)))
    report = open_input(config, seconds=arguments.seconds, rounds=arguments.rounds, rates=rates)
    try:
        run_input(report, arguments.workers or worker_counts(report.cores), say)
    finally:
        if report.stages is not None:
            drawing = functools.partial(draw, report)
            _write(pages(report), as_values(report), drawing, arguments.output)


def _input_values(arguments: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """The config whose data are read, with the sizes that flags name."""
    from vit_jax.config import apply_overrides
    from vit_jax.experiments.benchmark.workloads import values_of

    if (arguments.config is None) == (arguments.dataset is None):
        raise UserError("benchmark input needs either --config or --dataset")
    for flag in ("model", "image_sizes", "batch_sizes"):
        if len(getattr(arguments, flag) or ()) > 1:
            raise UserError(f"--{flag}: benchmark input takes one")
    if arguments.config is not None:
        values = load_config(arguments.config, overrides)
    else:
        model = (arguments.model or [_MODEL])[0]
        values = apply_overrides(values_of(model, _INPUT_BATCH), overrides)
        values["data"]["dataset"] = arguments.dataset
    if arguments.image_sizes:
        values["model"]["image_size"] = arguments.image_sizes[0]
    if arguments.batch_sizes:
        values["data"]["batch_size"] = arguments.batch_sizes[0]
    return values


def _write(
    pages: Sequence[Page],
    values: Mapping[str, Any],
    draw: Callable[[str], bytes] | None,
    output: epath.Path | None,
) -> None:
    """Prints tables, and writes the numbers and the picture if they are wanted.

    Args:
      draw: makes a picture by its ending; None if there is nothing to draw.
    """
    from vit_jax.experiments.paper.page import as_text

    show("\n\n".join(as_text(page) for page in pages))
    if output is None:
        return
    text = json.dumps(values, indent=1) + "\n"
    contents = {output.with_suffix(".json"): text.encode("utf-8", "backslashreplace")}
    if pictures.is_picture(output) and draw is not None:
        contents[output] = draw(output.suffix)
    write_outputs(contents)


def _check_output(output: epath.Path | None) -> None:
    if output is None:
        return
    endings = (".json", *pictures.SUFFIXES)
    if output.suffix not in endings:
        raise UserError(f"--output={output}: name a file that ends with {', '.join(endings)}")
    if pictures.is_picture(output):
        pictures.require_plots(f"--output={output}")
        check_output(output.with_suffix(".json"))
    check_output(output)
    check_folder(output)


def _list_of(parse: Callable[[str], _T]) -> Callable[[str], tuple[_T, ...]]:
    return lambda text: tuple(parse(part) for part in text.split(","))


def _positive(text: str) -> int:
    return _count(text, least=1)


def _count(text: str, least: int = 0) -> int:
    if not text.strip().isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} must be seconds, from 0 to 3600")
    return value


def _varied(text: str) -> tuple[str, list[str]]:
    key, is_given, values = text.partition("=")
    if not is_given or not key or not all(values.split(",")):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be KEY=VALUE,VALUE,… such as model.remat=none,block"
        )
    return key.removeprefix("config."), values.split(",")
