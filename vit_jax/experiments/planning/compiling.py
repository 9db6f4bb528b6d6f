"""The training step compiled for devices that may be absent, or how far it is from fitting."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

import jax

from vit_jax.analysis.collectives import KINDS, Collective, collectives
from vit_jax.training.program import Program

# Without a GPU none can be chosen among Triton's tiles by trying, and their default fits not all.
_OF_ABSENT_GPUS: dict[str, str | bool] = {"xla_gpu_enable_triton_gemm": False}

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"
# Compilers say either what temporaries need, or what the whole program needs.
_TEMPORARIES = re.compile(rf"temporaries \({_SIZE}\) exceeds available \w+ \({_SIZE}\)")
_USED = re.compile(rf"Used {_SIZE} of {_SIZE} hbm")


@dataclass(frozen=True)
class Sent:
    """What the collectives of one kind send in a step.

    Attributes:
      number: of collectives that a device takes part in.
      bytes: of their results on a device.
    """

    number: int
    bytes: int


@dataclass(frozen=True)
class Compiled:
    """What a compiler says of a step.

    Attributes:
      peak: bytes of a device at the peak.
      arguments: bytes of state and batch among them.
      sent: by kind of collective.
      seconds: that tracing and compiling took.
    """

    peak: int
    arguments: int
    sent: dict[str, Sent]
    seconds: float


@dataclass(frozen=True)
class TooLarge:
    """A step that its compiler refuses.

    Attributes:
      needed: bytes of a device, or the least that they are.
      available: bytes that a device has for programs; None if the compiler does not say.
    """

    needed: int
    available: int | None
    seconds: float


def compile_step(program: Program) -> Compiled | TooLarge:
    """Compiles the step that `train` runs; a program that is too large is an answer too."""
    began = time.perf_counter()
    platform = program.mesh.devices.flat[0].platform
    lowered = program.step().lower(program.state, program.batch, program.fixed)
    try:
        compiled = lowered.compile(_OF_ABSENT_GPUS if platform == "gpu" else None)
    except jax.errors.JaxRuntimeError as error:
        refused = _too_large(str(error), time.perf_counter() - began)
        if refused is None:
            raise
        return refused
    memory = compiled.memory_analysis()
    assert memory is not None
    arguments = memory.argument_size_in_bytes
    # Outputs that do not take the memory of arguments count too.
    unshared = memory.output_size_in_bytes - memory.alias_size_in_bytes
    every = arguments + unshared + memory.temp_size_in_bytes
    return Compiled(
        # Other platforms than TPUs leave the arguments out of the peak.
        peak=memory.peak_memory_in_bytes if platform == "tpu" else every,
        arguments=arguments,
        sent=_by_kind(collectives(compiled.as_text() or "")),
        seconds=time.perf_counter() - began,
    )


def _too_large(message: str, seconds: float) -> TooLarge | None:
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    match = _USED.search(message) or _TEMPORARIES.search(message)
    if match is None:
        return TooLarge(0, None, seconds)
    needed, available = (
        round(float(number) * _UNITS[unit])
        for number, unit in (match.group(1, 2), match.group(3, 4))
    )
    return TooLarge(needed, available, seconds)


def _by_kind(found: Iterable[Collective]) -> dict[str, Sent]:
    each = list(found)
    return {
        kind: Sent(
            sum(one.times for one in each if one.kind == kind),
            sum(one.bytes * one.times for one in each if one.kind == kind),
        )
        for kind in KINDS
        if any(one.kind == kind for one in each)
    }
