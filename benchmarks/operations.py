"""The operations of a program compiled for a TPU: what each computes, reads and writes.

XLA's own count runs through a loop's body once and adds everything up; this one counts the trips
of loops and keeps operations apart.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_START = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAMED = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLS = re.compile(r"calls=%([\w.\-]+)")
_LOOP = re.compile(r"condition=%([\w.\-]+), body=%([\w.\-]+)")
_BOUND = re.compile(r"= [su]32\[\]\S* constant\((\d+)\)")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_GROUPS = re.compile(r"(?:feature|batch)_group_count=(\d+)")

# They give other names to memory, or end what another operation began.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while"}

_NAMES_MEMORY = re.compile(r'custom_call_target="(?:AllocateBuffer|ConcatBitcast)"')


@dataclass(frozen=True)
class Array:
    """An array of a program.

    Attributes:
      is_fast: whether it lies in a core's fast memory and not in the device's.
    """

    shape: tuple[int, ...]
    bytes: int
    is_fast: bool


@dataclass
class Instruction:
    """One line of a computation."""

    opcode: str
    results: list[Array]
    operands: list[str]
    line: str


@dataclass(frozen=True)
class Operation:
    """An operation that runs by itself, such as a fusion.

    Attributes:
      kind: its opcode.
      times: how often it runs in a call of the program.
      flops: of matrix products and convolutions in it, each time.
      bytes: that it reads and writes in any memory, each time; slow_bytes: in the device's.
      source: the operation in the model's code that it is named after.
    """

    kind: str
    times: int
    flops: int
    bytes: int
    slow_bytes: int
    source: str


def operations(hlo: str) -> list[Operation]:
    """All operations of a compiled program.

    Args:
      hlo: `jax.stages.Compiled.as_text()`. A loop must count up from 0 to a constant, as scans do.
    """
    program = _Program(hlo)
    return list(program.run("ENTRY", 1))


@dataclass
class _Program:
    hlo: str
    computations: dict[str, dict[str, Instruction]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        current: dict[str, Instruction] = {}
        for line in self.hlo.splitlines():
            start, named = _START.match(line), _NAMED.match(line)
            if start:
                current = self.computations["ENTRY" if start[1] else start[2]] = {}
            elif named:
                current[named[1]] = _instruction(line[named.end() :])

    def run(self, name: str, times: int) -> Iterator[Operation]:
        """The operations of a computation that runs so often."""
        lines = self.computations[name]
        for instruction in lines.values():
            loop = _LOOP.search(instruction.line) if instruction.opcode == "while" else None
            if loop:
                yield from self.run(loop[2], times * self._trips(loop[1]))
            elif instruction.opcode not in _FREE and not instruction.opcode.endswith("-done"):
                touched = list(self._touched(instruction, lines))
                if not touched:
                    continue
                source = re.search(r'op_name="([^"]*)"', instruction.line)
                yield Operation(
                    instruction.opcode,
                    times,
                    self._flops(instruction, lines),
                    sum(size for size, _ in touched),
                    sum(size for size, is_fast in touched if not is_fast),
                    source[1] if source else "",
                )

    def _trips(self, condition: str) -> int:
        bounds = [
            int(bound)
            for instruction in self.computations[condition].values()
            for bound in _BOUND.findall("= " + instruction.line)
        ]
        return max(bounds, default=1)

    def _touched(
        self, instruction: Instruction, lines: dict[str, Instruction]
    ) -> Iterator[tuple[int, bool]]:
        """Bytes of each array read or written, and whether they are in fast memory."""
        operands = [lines[name].results for name in instruction.operands if name in lines]
        match instruction.opcode:
            case "custom-call" if _NAMES_MEMORY.search(instruction.line):
                return
            case "copy-start" | "slice-start":
                moved = instruction.results[1 if instruction.opcode == "slice-start" else 0]
                other = operands[0][0]
                yield moved.bytes, moved.is_fast
                yield moved.bytes, other.is_fast
            case "dynamic-slice" | "slice":
                yield from self._whole(instruction.results)
                yield from self._whole(instruction.results)
            case "dynamic-update-slice":
                yield from self._whole(operands[1])
                yield from self._whole(operands[1])
            case "fusion":
                match = _CALLS.search(instruction.line)
                assert match is not None
                inner = _Fusion(self.computations, match[1])
                for number, arrays in enumerate(operands):
                    for array in arrays:
                        yield inner.read(number, array.bytes), array.is_fast
                for number, array in enumerate(instruction.results):
                    yield inner.written(number, array.bytes), array.is_fast
            case _:
                for arrays in operands:
                    yield from self._whole(arrays)
                results = instruction.results
                if instruction.opcode.endswith("-start"):
                    results = results[len(results) // 2 :]
                yield from self._whole(results)

    @staticmethod
    def _whole(arrays: list[Array]) -> Iterator[tuple[int, bool]]:
        for array in arrays:
            yield array.bytes, array.is_fast

    def _flops(self, instruction: Instruction, lines: dict[str, Instruction]) -> int:
        if instruction.opcode == "convolution":
            left, right = (lines[name].results[0].shape for name in instruction.operands[:2])
            return _of_convolution(instruction.line, left, right, instruction.results[0].shape)
        called = _CALLS.search(instruction.line)
        if called is None or called[1] not in self.computations:
            return 0
        inner = self.computations[called[1]]
        return sum(self._flops(each, inner) for each in inner.values())


@dataclass
class _Fusion:
    """A fused computation: which parts of its operands it reads, and of its results it writes."""

    computations: dict[str, dict[str, Instruction]]
    name: str

    @property
    def lines(self) -> dict[str, Instruction]:
        """The instructions by name, the result's last."""
        return self.computations[self.name]

    def _inner(self, instruction: Instruction) -> "_Fusion":
        match = _CALLS.search(instruction.line)
        assert match is not None
        return _Fusion(self.computations, match[1])

    @cached_property
    def _users(self) -> dict[str, list[tuple[Instruction, str, int]]]:
        users: dict[str, list[tuple[Instruction, str, int]]] = {}
        for name, instruction in self.lines.items():
            for place, operand in enumerate(instruction.operands):
                users.setdefault(operand, []).append((instruction, name, place))
        return users

    @cached_property
    def _parameters(self) -> dict[int, str]:
        found = {}
        for name, instruction in self.lines.items():
            if instruction.opcode == "parameter":
                number = re.search(r"parameter\((\d+)\)", instruction.line)
                assert number is not None
                found[int(number[1])] = name
        return found

    def read(self, number: int, size: int) -> int:
        """Bytes that are read of an operand: where only slices are used, these."""
        parts = self._parts(self._parameters[number])
        return size if parts is None else min(size, parts)

    def _parts(self, name: str) -> int | None:
        total = 0
        for user, own_name, place in self._users.get(name, []):
            if user.opcode in ("dynamic-slice", "slice") and place == 0:
                total += user.results[0].bytes
            elif user.opcode == "dynamic-update-slice" and place == 0:
                continue  # It is written in place.
            elif user.opcode == "fusion":
                total += self._inner(user).read(place, self.lines[name].results[0].bytes)
            elif user.opcode == "bitcast":
                parts = self._parts(own_name)
                if parts is None:
                    return None
                total += parts
            else:
                return None
        return total

    def written(self, number: int, size: int) -> int:
        """Bytes that are written of a result: where it is updated in place, the update."""
        root = list(self.lines.values())[-1]
        if root.opcode == "tuple":
            root, number = self.lines[root.operands[number]], 0
        while root.opcode == "bitcast" and root.operands[0] in self.lines:
            root = self.lines[root.operands[0]]
        if root.opcode == "fusion":
            return self._inner(root).written(number, size)
        if root.opcode == "dynamic-update-slice":
            return self.lines[root.operands[1]].results[0].bytes
        return size


def _instruction(text: str) -> Instruction:
    """Reads `TYPE opcode(operands), attributes`."""
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opcode = text[end:].lstrip().partition("(")[0]
    opening = text.index("(", end)
    operands = text[opening : _closing(text, opening)]
    return Instruction(opcode, _arrays(text[:end]), _OPERAND.findall(operands), text)


def _closing(text: str, opening: int) -> int:
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    raise ValueError(f"no closing bracket in {text!r}")


def _arrays(text: str) -> list[Array]:
    found = []
    for dtype, lengths, layout in _ARRAY.findall(text):
        shape = tuple(int(length) for length in lengths.split(",") if length)
        bits = re.search(r"\d+", dtype)
        size = math.prod(shape) * (int(bits[0]) if bits else 8) // 8
        found.append(Array(shape, size, "S(" in layout))
    return found


def _of_convolution(
    line: str, left: tuple[int, ...], right: tuple[int, ...], result: tuple[int, ...]
) -> int:
    """Two for each multiply-add of an element with an element, and none for padding."""
    labels, window = _LABELS.search(line), _WINDOW.search(line)
    assert labels is not None
    options = dict(each.split("=") for each in window[1].split()) if window else {}
    spatial = sorted(label for label in labels[1] if label.isdigit())

    def each(name: str, default: str) -> list[str]:
        return options[name].split("x") if name in options else [default] * len(spatial)

    groups = _GROUPS.search(line)
    flops = 2 * result[labels[3].index("b")] * result[labels[3].index("f")]
    flops *= right[labels[2].index("i")]
    settings = zip(
        *(spatial, each("stride", "1"), each("pad", "0_0"), each("lhs_dilate", "1")),
        each("rhs_dilate", "1"),
        strict=True,
    )
    for label, stride, padding, dilation, kernel_dilation in settings:
        inputs, kernel, outputs = (
            shape[where.index(label)]
            for shape, where in zip((left, right, result), labels.groups(), strict=True)
        )
        low = int(padding.partition("_")[0])
        places = (
            o * int(stride) + k * int(kernel_dilation) - low
            for o in range(outputs)
            for k in range(kernel)
        )
        step = int(dilation)
        flops *= sum(p % step == 0 and 0 <= p // step < inputs for p in places)
    return flops if groups is None or "batch_group" not in line else flops // int(groups[1])
