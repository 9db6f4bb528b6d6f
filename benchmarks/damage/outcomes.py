"""How a case ends, and what the program printed until then."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class End(StrEnum):
    """How a case ends; those from WRONG on are faults whatever was damaged."""

    EQUAL = "equal"
    FELL_BACK = "fell back, equal"
    STATED = "as the text states"
    ASSUMED = "equal, assumptions printed"
    AS_BYTES = "as its bytes say"
    LEFT_OUT = "left out, others equal"
    AGAIN = "fetched again"
    REFUSED = "refused in one line"
    WRONG = "wrong numbers"
    LOST = "lost what is whole"
    TRACEBACK = "traceback"
    LINES = "many lines"
    TIME = "too long"
    MEMORY = "too much memory"
    DIED = "process died"


@dataclass(frozen=True)
class Ending:
    """How a case ended, and a line that says more."""

    end: End
    detail: str = ""


@dataclass(frozen=True)
class Output:
    """What a call did.

    Attributes:
      text: that it printed.
      error: why it refused; None if it did what was asked.
      value: that it returned.
    """

    text: str
    error: str | None = None
    value: object = None


# What no user should have to read.
_NOISE = re.compile(
    r'^Traceback|^  File "|never awaited|Exception ignored|Segmentation fault', re.M
)
_LONGEST_LINE = 1500


@contextlib.contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Keeps what this process and its libraries print; gives a function that returns it."""
    with tempfile.TemporaryFile() as file:
        saved = [os.dup(1), os.dup(2)]
        _flush()
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)

        def printed() -> str:
            _flush()
            return os.pread(file.fileno(), 2**20, 0).decode(errors="replace")

        try:
            yield printed
        finally:
            _flush()
            for descriptor, kept in zip((1, 2), saved, strict=True):
                os.dup2(kept, descriptor)
                os.close(kept)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def call(work: Callable[[], object]) -> Output:
    """Calls a function; a `UserError` is a refusal, anything else that it raises passes through."""
    from vit_jax.errors import UserError

    with captured() as printed:
        try:
            value = work()
        except UserError as error:
            return Output(printed(), str(error))
        return Output(printed(), None, value)


def run_command(arguments: list[str]) -> Output:
    """Runs a command of the program in this process."""
    from vit_jax.__main__ import main

    with captured() as printed:
        code = main(arguments)
        text = printed()
    if code == 0:
        return Output(text)
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    return Output(text, errors[-1].removeprefix("error: ") if code == 2 and errors else text)


def fault_of(output: Output) -> Ending | None:
    """What is wrong with the form of an answer; None if nothing is."""
    if found := _NOISE.search(output.text):
        first, *rest = output.text[found.start() :].splitlines()
        raised = next((line for line in rest if line[:1].strip()), "")
        return Ending(End.TRACEBACK, f"{first} {raised}"[:300])
    for line in [*output.text.splitlines(), output.error or ""]:
        if len(line) > _LONGEST_LINE:
            return Ending(End.LINES, f"a line of {len(line)} characters: {line[:100]}")
    if output.error is not None and ("\n" in output.error or not output.error.strip()):
        return Ending(End.LINES, f"{len(output.error.splitlines())} lines")
    return None
