import os
import subprocess
import sys

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
