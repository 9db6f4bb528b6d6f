"""The memory that a compiled program needs on each device, and the lack of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import jax
from jax.sharding import Mesh


class OutOfMemory(Exception):
    """A program needs more memory than a device has; the text says how much, in one line."""


class ProgramMemory(NamedTuple):
    """Bytes on each device, as the compiler counts them.

    Attributes:
      arguments: parameters and batch.
      temporaries: activations and other intermediate results.
      outputs: what the program returns, less what takes an argument's place.
    """

    arguments: int
    temporaries: int
    outputs: int

    @classmethod
    def of(cls, program: "jax.stages.Compiled") -> Self:
        """Reads it off a compiled program; zeros where the backend does not tell."""
        found: Any = program.memory_analysis()
        if found is None:
            return cls(0, 0, 0)
        return cls(
            found.argument_size_in_bytes,
            found.temp_size_in_bytes,
            found.output_size_in_bytes - found.alias_size_in_bytes,
        )

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def check_memory(memory: ProgramMemory, arguments: Sequence[Any], mesh: Mesh) -> None:
    """Compares a program with the memory of this process's devices, where that is known.

    What is on a device already, such as the state of an optimizer, stays there.

    Args:
      arguments: those of the program that are on the devices already, or only their shapes.

    Raises:
      OutOfMemory: it does not fit.
    """
    are_there = all(isinstance(x, jax.Array) for x in arguments)
    for device in mesh.local_devices:
        stats = device.memory_stats() or {}
        if "bytes_limit" not in stats:
            continue
        others = 0
        if are_there:
            own = sum(_bytes_on(device, x) for x in arguments)
            others = max(0, stats.get("bytes_in_use", 0) - own)
        if memory.total + others > stats["bytes_limit"]:
            raise OutOfMemory(
                f"{_gib(memory.total)} for the program and {_gib(others)} already in use, of "
                f"{_gib(stats['bytes_limit'])} on {device.device_kind}"
            )


@contextmanager
def noticing_lack_of_memory() -> Iterator[None]:
    """A context in which JAX's error about too little memory becomes `OutOfMemory`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).partition("RESOURCE_EXHAUSTED:")[2].strip().partition("\n")[0]
        raise OutOfMemory(reason) from error


def _bytes_on(device: Any, array: jax.Array) -> int:
    return sum(shard.data.nbytes for shard in array.addressable_shards if shard.device == device)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
