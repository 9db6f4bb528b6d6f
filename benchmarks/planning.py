"""Memory of a step by estimate and by the TPU compiler, over sizes, meshes and policies.

    python -m benchmarks.planning
    python -m benchmarks.planning S-none B-dots H-block-fsdp
    python -m benchmarks.planning --operations

Memory needs the extra `tpu`, and each setting takes a minute or more of a core. `--operations`
compares the traced operations of the largest recipes with XLA's count of their unrolled programs
before compilation. Recorded in `benchmarks/results/plan.md`.
"""

import argparse
import dataclasses
from typing import NamedTuple

import jax

from vit_jax.config import load_config
from vit_jax.experiments.planning.compiling import Compiled, compile_step
from vit_jax.experiments.planning.memory import Memory, Placed, estimate
from vit_jax.experiments.planning.tracing import trace
from vit_jax.experiments.sized import open_sized
from vit_jax.experiments.synthetic import ADAMW, synthetic_program
from vit_jax.models.rematerialisation import Remat
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.topologies import topology_devices
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.program import Program
from vit_jax.training.setup import assemble

_GIB = 2**30


class Setting(NamedTuple):
    """A step of AdamW in bfloat16 at 224 pixels."""

    model: str
    topology: str
    batch_size: int
    remat: Remat
    mesh: MeshConfig = MeshConfig()
    micro_batches: int = 1

    def program(self) -> Program:
        """The step, for its absent devices."""
        return synthetic_program(
            self.model,
            self.batch_size,
            self.mesh,
            topology_devices(self.topology),
            dataclasses.replace(ADAMW, micro_batches=self.micro_batches),
            dtype="bfloat16",
            remat=self.remat,
        )

    def estimate(self, program: Program) -> Memory:
        """Its memory, without compiling it."""
        devices = program.mesh.devices
        return estimate(
            Placed.of(program),
            trace(program.config, None, devices.flat[0]),
            rows=self.batch_size / devices.size / self.micro_batches,
            micro_batches=self.micro_batches,
            tensor=1,
        )


SETTINGS = {
    "S-none": Setting("ViT-S/16", "v5e:2x2", 256, "none"),
    "B-none": Setting("ViT-B/16", "v5e:2x2", 256, "none"),
    "B-dots": Setting("ViT-B/16", "v5e:2x2", 256, "dots"),
    "B-block": Setting("ViT-B/16", "v5e:2x2", 1024, "block"),
    "B-dots-fsdp": Setting("ViT-B/16", "v5e:2x2", 512, "dots", MeshConfig(1, 4)),
    "B-none-fsdp": Setting("ViT-B/16", "v5e:16x16", 4096, "none", MeshConfig(16, 16)),
    "L-block-fsdp": Setting("ViT-L/16", "v5e:4x4", 1024, "block", MeshConfig(1, 16)),
    "L-none-fsdp": Setting("ViT-L/16", "v5e:16x16", 4096, "none", MeshConfig(16, 16)),
    "L-none-micro": Setting("ViT-L/16", "v5e:4x4", 4096, "none", MeshConfig(8, 2), 16),
    "H-block-fsdp": Setting("ViT-H/14", "v5e:4x4", 1024, "block", MeshConfig(1, 16)),
    "H-none-micro": Setting("ViT-H/14", "v5e:16x16", 4096, "none", MeshConfig(64, 4), 2),
}


RECIPES = {
    "H/14": ("configs/pretrain.py:h14,jft",),
    "L/16": ("configs/pretrain.py:l16,imagenet21k",),
    "G/14": ("configs/scaling_vit.py:G14,imagenet21k", "--config.data.batch_size=4096"),
}


def operations() -> None:
    """Prints the table of `--operations`."""
    print("| recipe | traced | unrolled, by XLA | traced / unrolled |\n| --- | --- | --- | --- |")
    for name, (path, *flags) in RECIPES.items():
        values = load_config(path, [*flags, "--config.model.scan=false"])
        config, source, _, _ = open_sized(build(TrainConfig, values))
        device = jax.devices()[0]
        program = assemble(config, make_mesh(MeshConfig(), [device]), source).program
        lowered = program.step().lower(program.state, program.batch, program.fixed)
        analysis = lowered.cost_analysis()
        assert analysis is not None
        counted = analysis["flops"]
        traced = trace(program.config, source.max_labels, device).flops * config.data.batch_size
        print(f"| {name} | {traced:.4g} | {counted:.4g} | {traced / counted:.4f} |", flush=True)


def main(names: list[str]) -> None:
    """Prints the table of memory."""
    print("| setting | estimated | compiled | estimated / compiled |\n| --- | --- | --- | --- |")
    for name in names or SETTINGS:
        program = SETTINGS[name].program()
        memory = SETTINGS[name].estimate(program)
        compiled = compile_step(program)
        told = f"| {name} | {memory.peak / _GIB:.2f} GiB | "
        if isinstance(compiled, Compiled):
            told += f"{compiled.peak / _GIB:.2f} GiB | {memory.peak / compiled.peak:.3f} |"
        else:
            told += "too large | |"
        print(told, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operations", action="store_true")
    parser.add_argument("names", nargs="*", choices=[[], *SETTINGS], metavar="SETTING")
    arguments = parser.parse_args()
    if arguments.operations:
        operations()
    else:
        main(arguments.names)
