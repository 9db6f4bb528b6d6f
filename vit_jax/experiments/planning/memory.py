"""Memory of a training step on one device, estimated without compiling it."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Self

import jax

from vit_jax.experiments.planning.tracing import Traced
from vit_jax.training.program import Program

# Chosen with the compilations of benchmarks/results/plan.md at hand.
# What the differentiated block needs beside what it keeps: attention scores and their gradient, or
# the like of another model, as multiples of the largest array that it would keep of an image.
_WHILE_KEPT, _WHILE_RECOMPUTED = 1.0, 2.5
# Where all devices split the parameters, a TPU multiplies by one part after the other while the
# next one comes, and puts the results together: as multiples of the largest product.
_IN_PARTS = 1.5


@dataclass(frozen=True)
class Placed:
    """Bytes that one device of a mesh holds, whatever a step computes.

    Attributes:
      is_all_split: whether all devices that split the batch split the parameters too.
      parameters: those that train.
      fixed: those that the objective only reads.
      optimizer: moments, averaged weights and counters.
      whole: bytes of the parameters over all devices of `fsdp`, each counted once.
    """

    parameters: int
    fixed: int
    optimizer: int
    batch: int
    whole: int
    is_all_split: bool

    @classmethod
    def of(cls, program: Program) -> Self:
        """Reads them off the shardings of a program."""
        parameters = _on_device(program.state.params)
        whole = sum(
            math.prod(leaf.shape) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(program.state.params)
        )
        return cls(
            parameters,
            _on_device(program.fixed),
            _on_device(program.state) - parameters,
            _on_device(program.batch),
            whole // program.mesh.shape["tensor"],
            is_all_split=program.mesh.shape["data"] == 1 < program.mesh.shape["fsdp"],
        )


@dataclass(frozen=True)
class Memory:
    """Bytes of one device at the peak of a step.

    Attributes:
      gradients: in float32, twice where those of micro-batches are summed; and the parameters in
        the type of the activations.
      activations: what the backward pass keeps of a micro-batch.
      temporaries: of the block that is being differentiated.
    """

    parameters: int
    optimizer: int
    batch: int
    gradients: int
    activations: int
    temporaries: int

    @property
    def peak(self) -> int:
        """All of them together."""
        return sum(dataclasses.astuple(self))


def estimate(
    placed: Placed, traced: Traced, *, rows: float, micro_batches: int, tensor: int
) -> Memory:
    """Estimates the memory of a step.

    Args:
      traced: with the rematerialisation of the step.
      rows: of a micro-batch on one device.
      tensor: devices that split heads and hidden units.
    """
    gradients = placed.parameters * (1 if micro_batches == 1 else 2)
    if traced.itemsize == 2:
        gradients += placed.parameters // 2
    if placed.parameters < placed.whole:
        # This block and the next one: their parameters, gathered from the other devices of `fsdp`,
        # and their gradients in float32, which are not yet split.
        block = placed.whole // max(traced.depth, 1)
        gradients += 2 * (block * traced.itemsize // 4 + block)
    temporaries = traced.largest * (_WHILE_KEPT if traced.keeps_all else _WHILE_RECOMPUTED)
    if placed.is_all_split:
        temporaries += _IN_PARTS * traced.widest
    return Memory(
        parameters=placed.parameters + placed.fixed,
        optimizer=placed.optimizer,
        batch=placed.batch,
        gradients=gradients,
        activations=math.ceil(traced.kept * rows / tensor),
        temporaries=math.ceil(temporaries * rows / tensor),
    )


def _on_device(tree: Any) -> int:
    """Bytes that one device holds of arrays, given as `jax.ShapeDtypeStruct` with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
