"""What a compiled program sends between devices, read from its text."""

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

# `send` goes to other slices.
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "send")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_SOURCE = re.compile(r'op_name="([^"]*)"')
_CALLED = re.compile(
    r"(?:calls|to_apply|condition|body|branch_computations)=\{?([^,}]+(?:, %[^,}]+)*)"
)
_WHILE = re.compile(r"condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_BOUND = re.compile(r"= [su](?:32|64)\[\]\S* constant\((\d+)\)")
# A device's note about a running operation, behind its arrays.
_NOTE = re.compile(r"(?<=, |\*/)[su]32\[\]")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """An operation between devices.

    Attributes:
      kind: one of `KINDS`.
      shapes: the shapes of its results on a device.
      bytes: the size of these results.
      times: how often it runs in a call of the program.
      source: the operation in the model's code that it comes from.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int
    times: int
    source: str


def collectives(hlo: str) -> list[Collective]:
    """Returns all collectives of a compiled program.

    Args:
      hlo: `jax.stages.Compiled.as_text()`. A loop must count up from 0 to a constant, as scans do.
    """
    computations = _computations(hlo)
    times = _times(computations)
    found: dict[tuple[Any, ...], Collective] = {}
    for name, lines in computations.items():
        for line in lines:
            operation = _OPERATION.search(line)
            if operation is None or not times[name]:
                continue
            result, kind, is_start = operation.groups()
            parts = _parts(result)
            if (is_start and kind != "all-reduce") or kind == "send":
                # As many operands come before the results; what is sent stands alone.
                parts = _parts(_NOTE.sub("", result))
                parts = parts[len(parts) // 2 :]
            shapes = tuple(shape for shape, _ in parts)
            source = _SOURCE.search(line)
            channel = _CHANNEL.search(line)
            # A TPU's compiler cuts one collective into stages, which all name its channel; fused
            # ones of different shapes may share a channel too.
            key = channel.group(1) if channel else f"{name} {len(found)}", kind, shapes
            size = sum(number for _, number in parts)
            if key not in found or size * times[name] > found[key].bytes * found[key].times:
                found[key] = Collective(
                    kind, shapes, size, times[name], source.group(1) if source else ""
                )
    return list(found.values())


def _computations(hlo: str) -> dict[str, list[str]]:
    """The lines of each computation; that of the entry is named ENTRY."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in hlo.splitlines():
        start = _COMPUTATION.match(line)
        if start:
            lines = found["ENTRY" if start.group(1) else start.group(2)] = []
        else:
            lines.append(line)
    return found


def _times(computations: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs."""
    times: dict[str, int] = defaultdict(int)

    def run(name: str, count: int) -> None:
        times[name] += count
        for line in computations[name]:
            loop = _WHILE.search(line)
            if loop:
                run(loop.group(2), count * _trips(computations[loop.group(1)]))
                continue
            for called in _CALLED.findall(line):
                for callee in called.replace("%", "").split(", "):
                    if callee in computations:
                        run(callee, count)

    run("ENTRY", 1)
    return times


def _trips(condition: list[str]) -> int:
    bounds = [int(bound) for line in condition for bound in _BOUND.findall(line)]
    return max(bounds, default=1)


def _parts(result: str) -> list[tuple[tuple[int, ...], int]]:
    """Shape and bytes of each array in the type of a result."""
    parts = []
    for dtype, dims in _SHAPE.findall(result):
        shape = tuple(int(length) for length in dims.split(",") if length)
        bits = int(re.sub(r"\D.*$", "", dtype.lstrip("abcdefghijklmnopqrstuvwxyz")) or 8)
        size = bits // 8
        for length in shape:
            size *= length
        parts.append((shape, size))
    return parts
