"""Where arrays live: rules from a parameter's named axes and shape to its place on the mesh."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
from jax import Array
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.parameters import Parameter, Table, check_axes, find, missing, path_of

F = TypeVar("F", bound=Callable[..., Array])

# The mesh axes that split the batch.
BATCH_AXES = ("data", "fsdp")

# Arrays with fewer elements stay whole: gathering them costs more than splitting saves.
_SMALL = 2**14

# The axes that `tensor` splits. An array has at most one of them.
_TENSOR_AXES = ("heads", "hidden", "classes")


def partition_spec(parameter: Parameter, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """Where one parameter lies, or an array of the optimizer that belongs to it.

    `tensor` splits heads, hidden units and classes. `fsdp` splits the longest other axis of each
    large array, but never the axis that counts blocks. An axis that a mesh axis does not divide
    stays whole.
    """
    spec: list[str | None] = [None] * len(shape)
    tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
    if tensor > 1:
        for i, axis in enumerate(parameter.axes):
            if axis in _TENSOR_AXES and shape[i] % tensor == 0:
                spec[i] = "tensor"
    if fsdp > 1 and math.prod(shape) >= _SMALL:
        first = int(parameter.is_stacked)
        free = [i for i in range(first, len(shape)) if spec[i] is None and shape[i] % fsdp == 0]
        if free:
            # The longest axis of convolutions too. If all were split by their filters, which are
            # standardised one by one, XLA would also split activations by channels and gather
            # them again.
            spec[max(free, key=lambda i: shape[i])] = "fsdp"
    return P(*spec)


def state_shardings(state: Any, table: Table, mesh: Mesh | AbstractMesh) -> Any:
    """A sharding for each leaf of a tree: parameters, averaged weights and optimizer moments.

    Scalars and other small arrays that belong to no parameter, such as counters, are replicated.

    Args:
      state: arrays, or their shapes as `jax.ShapeDtypeStruct`.
      table: describes the parameters; see `parameters.find` for how an array is looked up.

    Raises:
      UserError: a large array belongs to no parameter of the table, or has other axes.
    """

    def place(key_path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        path = path_of(key_path)
        parameter = find(table, path)
        if parameter is None:
            if math.prod(leaf.shape) >= _SMALL:
                raise missing(path)
            return NamedSharding(mesh, P())
        check_axes(path, parameter, len(leaf.shape))
        return NamedSharding(mesh, partition_spec(parameter, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(place, state)


def share_split(params: Any, table: Table, mesh: Mesh | AbstractMesh, axis: str) -> float:
    """The share of the elements in large arrays that lies in arrays split by a mesh axis.

    Returns:
      1 if no array is large.
    """
    large = split = 0
    shardings = jax.tree.leaves(state_shardings(params, table, mesh))
    for leaf, sharding in zip(jax.tree.leaves(params), shardings, strict=True):
        size = math.prod(leaf.shape)
        if size >= _SMALL:
            large += size
            split += size * (axis in sharding.spec)
    return split / large if large else 1.0


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, P())


@dataclass(frozen=True)
class OnMesh:
    """A model's activations, split over the batch.

    Attributes:
      sequence: whether tokens between blocks are split over `tensor` too, so that the devices of
        `tensor` share the work of norms and residuals instead of repeating it (Korthikanti et al.,
        arXiv 2205.05198, section 4.2).
    """

    mesh: Mesh
    sequence: bool = False

    def constrain(self, x: Array) -> Array:
        """Tokens [batch, T, width], or feature maps [batch, ...]."""
        is_split = self.sequence and x.ndim == 3
        spec = P(BATCH_AXES, "tensor") if is_split else P(BATCH_AXES)
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

    def gather_sequence(self, x: Array) -> Array:
        """Splits tokens [batch, T, width] over the batch alone.

        Otherwise XLA leaves a branch's tokens split over the sequence, forward or backward, and
        gathers the branch's kernels instead.
        """
        if not self.sequence:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, P(BATCH_AXES)))

    def on_each_device(self, f: F) -> F:
        """`f` of arrays [batch, T, heads, size], run by each device on its examples and heads."""
        spec = P(BATCH_AXES, None, "tensor")
        # A kernel's output does not tell over which mesh axes it varies, so JAX cannot check it.
        return jax.shard_map(f, mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False)


def constrain_batch(mesh: Mesh, axis: int) -> Callable[[Array], Array]:
    """Returns a function that keeps arrays split over the batch, their axis number `axis`."""
    sharding = NamedSharding(mesh, P(*(None,) * axis, BATCH_AXES))
    return lambda x: jax.lax.with_sharding_constraint(x, sharding)
