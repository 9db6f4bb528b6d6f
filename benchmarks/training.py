"""Images per second and MFU of the training step, over models, attention, scan and remat.

    python -m benchmarks.training

Prints a table for AdamW in bfloat16 at 224 pixels, on random images that lie on the devices. MFU
counts 3 x 2 x multiply-adds for each image, without recomputation, against the peak speed of the
chips; see `vit_jax/analysis/peaks.py`. Every row is compiled, run for --warmup steps and timed over
--steps. A row shows if it needs more memory than a device has, or if its attention is for other
devices.
"""

import argparse
import itertools
import time

import jax

from benchmarks.machine import machine
from vit_jax.analysis.peaks import images_at_peak
from vit_jax.errors import UserError
from vit_jax.experiments.synthetic import random_batch, seconds_a_step, synthetic_program
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.training.devices import KERNELS, check_devices
from vit_jax.training.program import Program

HEAD = "| model | attention | scan | remat | batch | img/s | MFU | compile | memory |"


def main(
    models: list[str],
    attentions: list[str] | None,
    scans: list[str],
    remats: list[str],
    batch_sizes: list[int],
    image_size: int,
    dtype: str,
    warmup: int,
    steps: int,
) -> None:
    devices = jax.devices()
    print(f"{machine(devices)}, {image_size} pixels, {dtype}\n\n{HEAD}")
    print("|" + " --- |" * (HEAD.count("|") - 1))
    if attentions is None:
        fused = [kernel for kernel in KERNELS if KERNELS[kernel] == devices[0].platform]
        attentions = ["xla", *fused]
    rows = itertools.product(models, attentions, scans, remats, batch_sizes)
    for name, attention, scan, remat, batch_size in rows:
        try:
            program = synthetic_program(
                name,
                batch_size * len(devices),
                MeshConfig(),
                attention=attention,
                scan=scan == "scan",
                remat=remat,
                image_size=image_size,
                dtype=dtype,
            )
            check_devices(program.config, program.mesh)
            measured = _measure(program, warmup, steps)
        except UserError as error:
            measured = f"{error} | | |"
        print(
            f"| {name} | {attention} | {scan} | {remat} | {batch_size} | {measured} |",
            flush=True,
        )


def _measure(program: Program, warmup: int, steps: int) -> str:
    began = time.perf_counter()
    try:
        step, state, batch = program.compile(), program.start(), random_batch(program)
        compiled = time.perf_counter() - began
        seconds = seconds_a_step(step, state, batch, warmup=warmup, steps=steps)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower():
            return "out of memory | | |"
        raise
    speed = program.config.data.batch_size / seconds
    peak = images_at_peak(program.config.model, program.mesh.devices.flat)
    mfu = f"{speed / peak:.1%}" if peak else ""
    memory = step.memory_analysis()
    assert memory is not None
    peak_gib = memory.peak_memory_in_bytes / 2**30
    return f"{speed:,.1f} | {mfu} | {compiled:.0f} s | {peak_gib:.1f} GiB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["ViT-S/16", "ViT-B/16", "ViT-L/16", "ViT-H/14"]
    parser.add_argument("--models", nargs="+", default=names)
    parser.add_argument(
        "--attentions", nargs="+", help="xla, and the fused kernel for the devices at hand"
    )
    parser.add_argument("--scans", nargs="+", default=["scan", "unroll"])
    parser.add_argument("--remats", nargs="+", default=["none", "dots", "block"])
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[256], help="of a device")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    main(**vars(parser.parse_args()))
