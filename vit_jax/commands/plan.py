"""`plan`: compiles a training step for devices that may be absent; memory, operations, time."""

import argparse
import json
import os

from vit_jax.commands.output import say, show
from vit_jax.commands.output_files import check_output, output_path, write_outputs
from vit_jax.config import load_config
from vit_jax.plain import plain
from vit_jax.schema import build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE.py[:ARGUMENT]",
        help="as for train; --config.SECTION.KEY=VALUE changes a value. Neither data nor weights "
        "are needed: data sets of the paper have their published sizes",
    )
    parser.add_argument(
        "--topology",
        metavar="NAME",
        help="TPUs such as v5e:16x16 or v5p:4x4x4 (extra tpu; config.mesh.num_slices of them), or "
        "GPUs such as h100:8 or a100:4x8 (extra cuda). Default: the devices at hand",
    )
    parser.add_argument(
        "--mfu",
        type=_share,
        default=0.4,
        help="model FLOPs utilization for the duration, such as 0.4 (the default)",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="rank meshes, micro-batches and rematerialisation by estimates, and compile the best "
        "ones, at most five, until one fits",
    )
    parser.add_argument(
        "--output", type=output_path, metavar="FILE.json", help="write the numbers there too"
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    if arguments.topology is not None:
        # Programs are compiled for devices that are absent; JAX would look for them.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if arguments.output is not None:
        check_output(arguments.output)
    import jax

    from vit_jax.experiments.planning.plan import as_values, make_plan
    from vit_jax.experiments.planning.text import tables, verdict
    from vit_jax.experiments.sized import open_sized
    from vit_jax.parallel.topologies import topology_devices
    from vit_jax.training.choices import complete
    from vit_jax.training.config import TrainConfig

    values = complete(load_config(arguments.config, overrides))
    config, source, missing, _ = open_sized(build(TrainConfig, values))
    if arguments.topology is None:
        devices = jax.devices()
    else:
        devices = topology_devices(arguments.topology, config.mesh.num_slices)
    if missing is not None:
        say(f"{missing}; the numbers of examples and classes are the published ones")
    plan = make_plan(config, source, devices, mfu=arguments.mfu, search=arguments.search, say=say)
    show(f"{config.model.name} on {plan.hardware.devices} x {plan.hardware.kind}")
    for title, rows in tables(plan):
        show(f"\n{plain(title)}")
        width = max(len(name) for name, _ in rows) + 2
        for name, text in rows:
            show(f"  {plain(name):<{width}}{plain(text)}")
    show(f"\n{verdict(plan)}")
    if arguments.output is not None:
        text = json.dumps(as_values(plan), indent=1) + "\n"
        write_outputs({arguments.output: text.encode()})


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be above 0 and at most 1, such as 0.4")
    return value
