"""Where arrays live: rules from an array's path and shape to its place on the mesh."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
from jax import Array
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

F = TypeVar("F", bound=Callable[..., Array])

# The batch's first axis is split over both.
BATCH_AXES = ("data", "fsdp")

# Arrays below this many elements stay whole: gathering them costs more than it saves.
_SMALL = 2**14

# The axis, counted from the last, that `tensor` splits: heads, hidden units and classes. Paths
# are searched, so that they fit optimizer moments and averaged weights as well. Convolutions stay
# whole.
_TENSOR_RULES: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"attention/(query|key|value)/(kernel|bias)$"), -2),
    (re.compile(r"attention/out/kernel$"), -3),
    (re.compile(r"(mlp|_mixing)/dense1/(kernel|bias)$"), -1),
    (re.compile(r"(mlp|_mixing)/dense2/kernel$"), -2),
    (re.compile(r"head/(kernel|bias)$"), -1),
)
# The first axis of these is the block's number, which a scan runs over.
_STACKED = re.compile(r"(^|/)blocks/")


def partition_spec(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """Places one array of parameters or of optimizer state.

    Args:
      path: names joined by "/", such as `params/blocks/mlp/dense1/kernel`.
    """
    spec: list[str | None] = [None] * len(shape)
    tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
    for pattern, axis in _TENSOR_RULES:
        if tensor > 1 and pattern.search(path) and shape[axis] % tensor == 0:
            spec[axis] = "tensor"
    if fsdp > 1 and math.prod(shape) >= _SMALL:
        first = 1 if _STACKED.search(path) else 0
        free = [i for i in range(first, len(shape)) if spec[i] is None and shape[i] % fsdp == 0]
        if free:
            # Of a convolution too. Splitting all by their filters, which are standardised one by
            # one, makes XLA split activations by channels as well, and gather them whole again.
            spec[max(free, key=lambda i: shape[i])] = "fsdp"
    return P(*spec)


def state_shardings(state: Any, mesh: Mesh | AbstractMesh) -> Any:
    """A sharding for every leaf of a tree of arrays or of their shapes."""

    def place(key_path, leaf) -> NamedSharding:
        path = jax.tree_util.keystr(key_path, simple=True, separator="/")
        return NamedSharding(mesh, partition_spec(path, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(place, state)


def share_split(params: Any, mesh: Mesh | AbstractMesh, axis: str) -> float:
    """Of the elements of arrays that are large enough, the share in those that an axis splits.

    Returns:
      1 if no array is.
    """
    large = split = 0
    shardings = jax.tree.leaves(state_shardings(params, mesh))
    for leaf, sharding in zip(jax.tree.leaves(params), shardings, strict=True):
        size = math.prod(leaf.shape)
        if size >= _SMALL:
            large += size
            split += size * (axis in sharding.spec)
    return split / large if large else 1.0


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Arrays whose first axis is the batch."""
    return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Arrays that every device holds whole."""
    return NamedSharding(mesh, P())


@dataclass(frozen=True)
class OnMesh:
    """A model's activations, split over the batch.

    Attributes:
      sequence: whether tokens between blocks are split over `tensor` too, which keeps norms and
        residuals from being computed by each of its devices alike (Korthikanti et al.,
        arXiv 2205.05198, section 4.2).
    """

    mesh: Mesh
    sequence: bool = False

    def constrain(self, x: Array) -> Array:
        """Tokens [batch, T, width], or feature maps [batch, ...]."""
        is_split = self.sequence and x.ndim == 3
        spec = P(BATCH_AXES, "tensor") if is_split else P(BATCH_AXES)
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

    def whole(self, x: Array) -> Array:
        """Tokens [batch, T, width] split over the batch alone.

        Without it XLA leaves a branch's tokens split over the sequence, forward or backward, and
        gathers its kernels instead.
        """
        if not self.sequence:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, P(BATCH_AXES)))

    def on_each_device(self, f: F) -> F:
        """`f` of arrays [batch, T, heads, size], by each device on its examples and heads."""
        spec = P(BATCH_AXES, None, "tensor")
        # What a kernel makes of its shapes says nothing of the mesh's axes, hence no check.
        return jax.shard_map(f, mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False)


def constrain_batch(mesh: Mesh, axis: int) -> Callable[[Array], Array]:
    """A function that keeps an array split over the batch, which is its axis `axis`."""
    sharding = NamedSharding(mesh, P(*(None,) * axis, BATCH_AXES))
    return lambda x: jax.lax.with_sharding_constraint(x, sharding)
