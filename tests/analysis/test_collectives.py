import os
import subprocess
import sys

from vit_jax.analysis.collectives import collectives

# A loop over five kernels that are split over eight devices, as is the batch.
PROGRAM = """
import jax, jax.numpy as jnp
from jax import P
from jax.sharding import AxisType, NamedSharding
from vit_jax.analysis.collectives import collectives

mesh = jax.make_mesh((8,), ("fsdp",), (AxisType.Auto,))

def place(shape, *spec):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))

def loss(kernels, x):
    def body(x, kernel):
        return jax.lax.with_sharding_constraint(x @ kernel, NamedSharding(mesh, P("fsdp"))), None
    return jax.lax.scan(body, x, kernels)[0].sum()

kernels = place((5, 64, 64), None, "fsdp")
sent = collectives(jax.jit(loss).lower(kernels, place((16, 64), "fsdp")).compile().as_text())
(gather,) = [c for c in sent if c.kind == "all-gather"]
assert (gather.shapes[0][-2:], gather.bytes, gather.times) == ((64, 64), 64 * 64 * 4, 5), gather
(reduce,) = [c for c in sent if c.kind == "all-reduce"]
assert (reduce.shapes, reduce.bytes, reduce.times) == (((),), 4, 1), reduce
assert len(sent) == 2

# Two kernels on every device, whose gradients are summed in one go.
kernels = [place((64, 32)), place((32, 64))]
def gradients(kernels, x):
    return jax.grad(lambda kernels: (x @ kernels[0] @ kernels[1]).sum())(kernels)
program = jax.jit(gradients, out_shardings=NamedSharding(mesh, P()))
sent = collectives(program.lower(kernels, place((16, 64), "fsdp")).compile().as_text())
assert {c.kind for c in sent} == {"all-reduce"}
assert sum(c.bytes * c.times for c in sent) == 2 * 64 * 32 * 4, sent

# Nothing is sent where nothing is split.
assert collectives(jax.jit(lambda x: 2 * x).lower(place((16,))).compile().as_text()) == []
"""


def test_collectives_of_loops_and_gradients():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# As a compiler writes them that lets products run meanwhile; see the operations' semantics at
# openxla.org/xla/operation_semantics. Of two arrays of 1,024 and 4,096 bytes, and a sum that is cut
# into eighths.
UNDER_WAY = """
ENTRY %main (a: f32[256], b: bf16[2048]) -> f32[] {
  %s = (f32[256], bf16[2048]) all-reduce-start(%a, %b), channel_id=1, to_apply=%add
  %g = ((f32[32], bf16[256]), (f32[256], bf16[2048])) all-gather-start(%c, %d), channel_id=2
  %r = ((f32[256]), f32[32]{0:T(128)}, u32[]{:S(2)}) reduce-scatter-start(%a), channel_id=3
  %p = (f32[256], f32[256], u32[]{:S(2)}, u32[]) collective-permute-start(%a), channel_id=4
  %t = (bf16[2048], u32[]{:S(2)}, token[]) send(%b, %after), channel_id=5
  %n = (f32[256], u32[]) all-reduce(%a, %count), channel_id=6, to_apply=%add
}
"""


def test_collectives_that_are_under_way_count_by_their_results() -> None:
    sent = {c.kind: (c.shapes, c.bytes) for c in collectives(UNDER_WAY)[:-1]}
    assert sent == {
        "all-reduce": (((256,), (2048,)), 1024 + 4096),
        "all-gather": (((256,), (2048,)), 1024 + 4096),
        "reduce-scatter": (((32,),), 1024 // 8),
        "collective-permute": (((256,),), 1024),
        "send": (((2048,),), 4096),
    }
    assert collectives(UNDER_WAY)[-1].bytes == 1024 + 4
