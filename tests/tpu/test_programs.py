"""Programs for TPUs that are not there: what they need, and what they send, by the TPU compiler.

Bytes of collectives are held to closed forms of the number of parameters, which travel as bfloat16;
bytes of a device to what was recorded with libtpu 0.0.42, and a tenth more.
"""

import functools
import re
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import P
from jax.sharding import NamedSharding

from vit_jax.analysis.collectives import KINDS, Collective, collectives
from vit_jax.analysis.macs import count_params
from vit_jax.experiments.synthetic import synthetic_program
from vit_jax.models.config import ModelConfig
from vit_jax.models.dot_product import attend
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import OnMesh
from vit_jax.parallel.topologies import topology_devices

pytest.importorskip("libtpu")
GIB = 2**30
# The training's scalars, and numbers of rows that count.
SCALAR = 1024


@dataclass(frozen=True)
class Case:
    """A step of AdamW in bfloat16 at 224 pixels, and its bounds.

    Attributes:
      sent: bytes of the collectives of each kind in a step, as a multiple of the parameters' bytes.
        Where parameters are gathered by permutation while products run, the trips of that loop are
        counted twice.
      number: of all collectives in a step.
      gib: of a device, at the peak.
    """

    name: str
    topology: str
    mesh: MeshConfig
    batch_size: int
    sent: dict[str, float] = field(default_factory=dict)
    number: int = 0
    gib: float = 0
    options: dict[str, Any] = field(default_factory=dict)


BLOCK = {"remat": "block"}
CASES = {
    "B-16": Case("ViT-B/16", "v5e:4x4", MeshConfig(), 1024, {"all-reduce": 1.02}, 30, 13.9),
    "H-16": Case(
        *("ViT-H/14", "v5e:4x4", MeshConfig(1, 16), 1024),
        *({"all-gather": 0.95, "collective-permute": 5, "all-reduce": 0.02}, 15_000, 3.7, BLOCK),
    ),
    "B-256": Case(
        *("ViT-B/16", "v5e:16x16", MeshConfig(16, 16), 4096),
        *({"all-gather": 2.02, "all-reduce": 1.1}, 240, 3.2),
    ),
    "L-16": Case(
        *("ViT-L/16", "v5e:4x4", MeshConfig(1, 16), 1024),
        *({"all-gather": 0.95, "collective-permute": 5, "all-reduce": 0.02}, 11_200, 1.9, BLOCK),
    ),
    # Each block's parameters are gathered for the forward and again for the backward pass.
    "L-256": Case(
        *("ViT-L/16", "v5e:16x16", MeshConfig(16, 16), 4096),
        *({"all-gather": 2.02, "all-reduce": 1.1}, 700, 8.6),
    ),
    # And some of them to compute the forward pass again.
    "H-256": Case(
        *("ViT-H/14", "v5e:16x16", MeshConfig(16, 16), 4096),
        *({"all-gather": 2.3, "all-reduce": 1.12, "collective-permute": 0.035}, 1150, 1.5, BLOCK),
    ),
}


def compiled(case: Case) -> jax.stages.Compiled:
    devices = topology_devices(case.topology, case.mesh.num_slices)
    return synthetic_program(
        case.name, case.batch_size, case.mesh, devices, dtype="bfloat16", **case.options
    ).compile()


def total(sent: list[Collective], *kinds: str) -> int:
    return sum(c.bytes * c.times for c in sent if c.kind in kinds)


def activations(sent: list[Collective], case: Case, tokens: int) -> list[Collective]:
    """Gathered arrays that have a token's axis behind one of examples."""
    rows = case.batch_size // (case.mesh.fsdp * 16)
    return [
        c
        for c in sent
        if c.kind in ("all-gather", "all-to-all")
        for shape in c.shapes
        if len(shape) >= 3 and shape[0] >= rows > 1 and tokens in shape[1:]
    ]


# These take minutes each to compile; beside them stays one of 16 and one of 256 chips.
PODS = {"H-16", "B-256", "H-256"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=n, marks=[pytest.mark.pods] * (n in PODS)) for n, c in CASES.items()],
)
def test_a_step_s_memory_and_collectives(case: Case) -> None:
    program = compiled(case)
    model = ModelConfig(case.name, num_classes=1000)
    params = 2 * sum(count_params(model).values())
    sent = collectives(program.as_text())
    memory = program.memory_analysis()
    assert memory is not None
    print(  # Shown where a bound fails.
        case.name,
        {kind: total(sent, kind) / params for kind in KINDS},
        sum(c.times for c in sent),
        memory.peak_memory_in_bytes / GIB,
    )
    assert not activations(sent, case, model.sequence_length)
    for kind in KINDS:
        assert total(sent, kind) <= case.sent.get(kind, 0.01) * params
    assert sum(c.times for c in sent) <= case.number
    assert memory.peak_memory_in_bytes <= 1.1 * case.gib * GIB
    # Parameters and a moment in float32, another in bfloat16, and whatever cannot be split.
    state = 5 * params / case.mesh.fsdp
    assert state <= memory.argument_size_in_bytes <= 1.1 * state + 224 * 224 * 3 * case.batch_size


@pytest.mark.parametrize("sequence", [False, True])
def test_tensor_parallel_blocks_gather_no_kernels(sequence: bool) -> None:
    mesh = MeshConfig(data=8, tensor=2, sequence=sequence)
    case = Case("ViT-S/16", "v5e:4x4", mesh, 256, options=BLOCK)
    sent = collectives(compiled(case).as_text())
    kernels = {(384, 1536), (1536, 384), (384, 6, 64), (6, 64, 384)}
    gathered = {
        tuple(length for length in shape if length > 1)
        for c in sent
        if c.kind == "all-gather"
        for shape in c.shapes
    }
    assert not kernels & gathered
    # What each half makes of a block's 32 examples is put together, in every block.
    tokens = 32 * 197 * 384 * 2
    assert any(c.times == 12 and c.bytes >= tokens / 2 for c in sent)


def test_gradients_go_between_slices_in_parts() -> None:
    # Small images compile faster, and gradients have the size of the parameters.
    small: dict[str, Any] = {"depth": 2, "image_size": 64}
    case = Case("ViT-S/16", "v5e:2x2", MeshConfig(num_slices=2), 64, options=small)
    program = compiled(case)
    size = 2 * sum(count_params(ModelConfig("ViT-S/16", num_classes=1000, **small)).values())
    # The head computes in float32, and so do its gradients go. The six heads of queries, keys and
    # values are filled up to eight, to be cut into quarters.
    size += 2 * 384 * 1000 + 2 * (2 * 3 * 384 * 2 * 64)
    sent = collectives(program.as_text())
    # A slice sums its own, each of its four devices sends a quarter, and they put these together.
    # Quarters are filled up to whole tiles of 1,024 elements.
    assert 0.25 * size <= total(sent, "send") <= 0.26 * size
    groups = re.findall(r"replica_groups=(\S+),", program.as_text())
    assert set(groups) == {"{{0,1,2,3}}"}


def test_block_inputs_wait_in_the_host_s_memory() -> None:
    def memory(remat: str) -> Any:
        options = {"image_size": 96, "remat": remat}
        return compiled(
            Case("ViT-S/16", "v5e:4x4", MeshConfig(), 1024, options=options)
        ).memory_analysis()

    on_device, on_host = memory("block"), memory("offload")
    assert on_device is not None and on_host is not None
    inputs = 12 * 64 * 37 * 384 * 2
    assert on_host.host_temp_size_in_bytes >= inputs
    assert on_host.temp_size_in_bytes < on_device.temp_size_in_bytes


@pytest.mark.parametrize(
    ("tokens", "heads", "size"), [(197, 12, 64), (577, 16, 80), (1025, 16, 64)]
)
def test_the_fused_kernel_compiles_on_a_mesh(tokens: int, heads: int, size: int) -> None:
    mesh = make_mesh(MeshConfig(data=4, fsdp=2, tensor=2), topology_devices("v5e:4x4"))
    sharding = NamedSharding(mesh, P(("data", "fsdp"), None, "tensor"))
    shape = jax.ShapeDtypeStruct((32, tokens, heads, size), jnp.bfloat16, sharding=sharding)
    mix = functools.partial(attend, implementation="pallas", placement=OnMesh(mesh))

    def loss(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return mix(query, key, value).astype(jnp.float32).sum()

    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(shape, shape, shape).compile()
    sent = collectives(program.as_text())
    assert total(sent, *{c.kind for c in sent}) <= SCALAR
    # A fused backward pass keeps no scores: [4, heads, tokens, tokens] in float32.
    assert program.memory_analysis().temp_size_in_bytes < 4 * heads / 2 * tokens**2 * 4 + 2**25
