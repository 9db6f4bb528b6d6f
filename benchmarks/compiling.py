"""Time to compile the training step of L/16, its blocks scanned and unrolled, over depth.

    python -m benchmarks.compiling
    python -m benchmarks.compiling --topology=v5e:2x2

Traces and compiles for the devices at hand or, with the extra `tpu`, for a TPU that is absent. The
TPU compiler takes more than a quarter of an hour for the unrolled step.
"""

import argparse
import time

import jax

from benchmarks.machine import machine
from vit_jax.experiments.synthetic import synthetic_program
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.parallel.topologies import topology_devices
from vit_jax.training.program import Program

ROWS = [(True, 6), (True, 12), (True, 24), (False, 24)]


def main(model: str, batch_size: int, topology: str | None) -> None:
    devices = jax.devices() if topology is None else topology_devices(topology)
    print(f"{model}, batch {batch_size}, for {machine(devices)}\n")
    print("| blocks | depth | trace and compile |\n| --- | --- | --- |")

    def step(depth: int, scan: bool) -> Program:
        return synthetic_program(
            model, batch_size, MeshConfig(), devices, depth=depth, scan=scan, dtype="bfloat16"
        )

    step(1, True).compile()  # Leaves out what is needed only once.
    seconds = {}
    for scan, depth in ROWS:
        synthetic = step(depth, scan)
        began = time.perf_counter()
        synthetic.compile()
        seconds[scan, depth] = time.perf_counter() - began
        blocks = "scanned" if scan else "unrolled"
        print(f"| {blocks} | {depth} | {seconds[scan, depth]:.1f} s |", flush=True)
    print(
        f"\nat depth 24, scanned / unrolled: {seconds[True, 24] / seconds[False, 24]:.2f}; "
        f"scanned, depth 24 / depth 6: {seconds[True, 24] / seconds[True, 6]:.2f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-L/16")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--topology", help="such as v5e:4x4")
    main(**vars(parser.parse_args()))
