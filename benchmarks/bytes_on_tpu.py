"""Bytes that a training step accesses on an absent TPU, beside a plain ViT in Flax Linen.

    python -m benchmarks.bytes_on_tpu
    python -m benchmarks.bytes_on_tpu --models ViT-B/16 --remats none --depths 2 4
    python -m benchmarks.bytes_on_tpu --remats none --attention pallas --only ours

Compiles the steps of ours and of `benchmarks.plain_vit` with the TPU compiler (the extra `tpu`):
the same batch, head, AdamW with clipping and its first moment in bfloat16, and activations in
bfloat16. Blocks are scanned, and the trips of loops are counted (`benchmarks/operations.py`). With
`--depths`, they are unrolled at two depths, and the model's depth is reached by a straight line; so
is that of a step too large for the chip, from a sixth and a third of its blocks.

GB accessed are the operands and results of all operations, in any memory; HBM is the part in the
device's own memory. The roofline is the sum over operations of the longer of operations over peak
and HBM bytes over bandwidth; MFU is the model's operations in that time. A kernel of its own
(`pallas`) shows its operands and results, but not its operations. Recorded in
`benchmarks/results/bytes_on_tpu.md`.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.machine import machine
from benchmarks.operations import operations
from benchmarks.plain_vit import plain_vit, train_step
from vit_jax.analysis.peaks import images_at_peak, memory_bandwidth, peak_flops
from vit_jax.experiments.synthetic import ADAMW, CLASSES, synthetic_program
from vit_jax.models.config import ModelConfig
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.parallel.topologies import topology_devices

HEAD = "| model | remat | code | GB accessed | in HBM | peak GiB | roofline ms | MFU |"
_GB, _GIB = 1e9, 2**30


class Counted(NamedTuple):
    """What one chip does in a step; all but the peak grow linearly with the depth."""

    bytes: float
    slow_bytes: float
    seconds: float
    peak: float


class Case(NamedTuple):
    """A step to compile."""

    model: str
    remat: Any
    scan: bool
    attention: Any
    devices: list[jax.Device]
    images: int

    def config(self, depth: int | None = None) -> ModelConfig:
        """The model, perhaps with another depth."""
        return ModelConfig(
            self.model,
            num_classes=CLASSES,
            depth=depth,
            dtype="bfloat16",
            remat=self.remat,
            scan=self.scan,
            attention=self.attention,
        ).completed()


def ours(case: Case, depth: int | None) -> Any:
    """Our step, lowered."""
    program = synthetic_program(
        case.model,
        case.images * len(case.devices),
        MeshConfig(),
        case.devices,
        depth=depth,
        dtype="bfloat16",
        remat=case.remat,
        scan=case.scan,
        attention=case.attention,
    )
    return program.step().lower(program.state, program.batch, program.fixed)


def plain(case: Case, depth: int | None) -> Any:
    """The plain step, lowered."""
    config = case.config(depth)
    model = plain_vit(config, scan=case.scan, remat=case.remat)
    # The optimizer of ours.
    optimizer = optax.chain(
        optax.clip_by_global_norm(ADAMW.clip_norm or 0),
        optax.adamw(ADAMW.lr, mu_dtype=jnp.bfloat16, weight_decay=ADAMW.weight_decay),
    )
    mesh = Mesh(case.devices, ("data",))
    images = (case.images * len(case.devices), *config.input_size, 3)

    def shapes(tree: Any, spec: P) -> Any:
        sharding = NamedSharding(mesh, spec)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    batch = jax.ShapeDtypeStruct(images, jnp.uint8), jax.ShapeDtypeStruct(images[:1], jnp.int32)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(images)))["params"]
    state = shapes((params, jax.eval_shape(optimizer.init, params)), P())
    results = (*jax.tree.map(lambda x: x.sharding, state), NamedSharding(mesh, P()))
    step = jax.jit(train_step(model, optimizer), donate_argnums=(0, 1), out_shardings=results)
    return step.lower(*state, *shapes(batch, P("data")))


def count(lowered: Any, device: Any) -> Counted | None:
    """Compiles a step and counts; None if it is too large for the chip."""
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return None
        raise
    peak, bandwidth = peak_flops(device), memory_bandwidth(device)
    assert peak is not None and bandwidth is not None
    found = operations(compiled.as_text())
    return Counted(
        sum(o.times * o.bytes for o in found),
        sum(o.times * o.slow_bytes for o in found),
        sum(o.times * max(o.flops / peak, o.slow_bytes / bandwidth) for o in found),
        compiled.memory_analysis().peak_memory_in_bytes,
    )


def at_depth(depth: int, depths: tuple[int, int], counted: list[Counted]) -> Counted:
    """What a step of another depth does: from two depths by a straight line."""
    share = (depth - depths[0]) / (depths[1] - depths[0])
    low, high = counted
    return Counted(*(a + share * (b - a) for a, b in zip(low, high, strict=True)))


def row(
    case: Case,
    code: str,
    lower: Callable[[Case, int | None], Any],
    depths: tuple[int, int] | None,
) -> Counted:
    """Counts a step and prints its row."""
    device, note = case.devices[0], ""
    depth = case.config().size.depth
    counted = None if depths else count(lower(case, None), device)
    if counted is None:
        if depths is None:
            depths, note = (depth // 6, depth // 3), "too large: "
        parts = [count(lower(case, each), device) for each in depths]
        assert all(parts), f"{case.model}: too large even with {depths} blocks"
        counted = at_depth(depth, depths, [part for part in parts if part])
    at_peak = images_at_peak(case.config(), [device])
    assert at_peak is not None
    mfu = case.images / at_peak / counted.seconds
    print(
        f"| {case.model} | {case.remat} | {code} | {counted.bytes / _GB:.1f} | "
        f"{counted.slow_bytes / _GB:.1f} | {note}{counted.peak / _GIB:.2f} | "
        f"{1e3 * counted.seconds:.1f} | {mfu:.1%} |",
        flush=True,
    )
    return counted


def main(
    models: list[str],
    remats: list[str],
    depths: tuple[int, int] | None,
    attention: str,
    topology: str,
    images: int,
    only: str | None,
) -> None:
    devices = topology_devices(topology)
    blocks = f"unrolled at depths {depths[0]} and {depths[1]}" if depths else "scanned"
    print(f"{topology}, {images} images a chip, blocks {blocks}, {machine(devices)}\n\n{HEAD}")
    print("|" + " --- |" * (HEAD.count("|") - 1))
    codes = {"plain": plain, "ours": ours}
    for model in models:
        for remat in remats:
            case = Case(model, remat, depths is None, attention, devices, images)
            found = {
                code: row(case, code, lower, depths)
                for code, lower in codes.items()
                if only in (None, code)
            }
            if only is None:
                of = found["ours"].bytes / found["plain"].bytes
                slow = found["ours"].slow_bytes / found["plain"].slow_bytes
                peak = found["ours"].peak / found["plain"].peak
                print(f"| | | ours / plain | {of:.2f} | {slow:.2f} | {peak:.2f} | | |", flush=True)


if __name__ == "__main__":
    # The TPU's compiler needs no device, and a GPU would only be in the way.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["ViT-B/16", "ViT-L/16"])
    parser.add_argument("--remats", nargs="+", default=["none", "dots", "block"])
    parser.add_argument("--depths", nargs=2, type=int, help="two depths to unroll blocks at")
    parser.add_argument("--attention", default="xla", choices=["xla", "pallas"])
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--images", type=int, default=64, help="of a chip")
    parser.add_argument("--only", choices=["plain", "ours"])
    main(**vars(parser.parse_args()))
