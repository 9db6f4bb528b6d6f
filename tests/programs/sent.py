"""Small programs on eight devices, and the collectives that are read from them."""

import jax
import jax.numpy as jnp
from jax import Array, P
from jax.sharding import AxisType, NamedSharding

from vit_jax.analysis.collectives import collectives


def check_collectives() -> None:
    """A loop over split kernels, gradients that are summed together, and nothing to send."""
    mesh = jax.make_mesh((8,), ("fsdp",), (AxisType.Auto,))

    def place(shape: tuple[int, ...], *spec: str | None) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))

    def loss(kernels: Array, x: Array) -> Array:
        def body(x: Array, kernel: Array) -> tuple[Array, None]:
            split = NamedSharding(mesh, P("fsdp"))
            return jax.lax.with_sharding_constraint(x @ kernel, split), None

        return jax.lax.scan(body, x, kernels)[0].sum()

    # Five kernels that are split over eight devices, as is the batch.
    kernels = place((5, 64, 64), None, "fsdp")
    sent = collectives(jax.jit(loss).lower(kernels, place((16, 64), "fsdp")).compile().as_text())
    (gather,) = [c for c in sent if c.kind == "all-gather"]
    assert (gather.shapes[0][-2:], gather.bytes, gather.times) == ((64, 64), 64 * 64 * 4, 5), gather
    (reduce,) = [c for c in sent if c.kind == "all-reduce"]
    assert (reduce.shapes, reduce.bytes, reduce.times) == (((),), 4, 1), reduce
    assert len(sent) == 2

    # Two kernels on every device, whose gradients are summed in one go.
    def gradients(kernels: list[Array], x: Array) -> list[Array]:
        return jax.grad(lambda kernels: (x @ kernels[0] @ kernels[1]).sum())(kernels)

    program = jax.jit(gradients, out_shardings=NamedSharding(mesh, P()))
    whole = [place((64, 32)), place((32, 64))]
    sent = collectives(program.lower(whole, place((16, 64), "fsdp")).compile().as_text())
    assert {c.kind for c in sent} == {"all-reduce"}
    assert sum(c.bytes * c.times for c in sent) == 2 * 64 * 32 * 4, sent

    # Nothing is sent where nothing is split.
    assert collectives(jax.jit(lambda x: 2 * x).lower(place((16,))).compile().as_text()) == []
