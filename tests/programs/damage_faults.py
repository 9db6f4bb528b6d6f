"""A kind of files for the benchmark of damage, each case of which ends in another way."""

import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.damage.damages import Case
from benchmarks.damage.outcomes import End, Ending, call, fault_of
from vit_jax.errors import UserError

ALLOWED = (End.EQUAL, End.REFUSED)


def _refuse() -> None:
    raise UserError("the file is damaged; get it again")


def _warn() -> None:
    print("Exception ignored in: <coroutine>", file=sys.stderr)
    _refuse()


def prepare(root: Path) -> None:
    (root / "made").write_text("once")


def cases(root: Path) -> list[Case]:
    assert (root / "made").read_text() == "once"
    files = ("fine", "refuses", "raises", "warns", "hangs", "eats", "dies", "differs", "fine again")
    return [Case(__name__, file, "emptied", group=file) for file in files]


def run(case: Case, root: Path, scratch: Path) -> Ending:
    assert not list(scratch.iterdir())
    (scratch / case.file).mkdir()
    if case.damage != "none":
        match case.file:
            case "raises":
                raise KeyError("a fault of the program")
            case "hangs":
                os.mkfifo(scratch / "fifo")
                open(scratch / "fifo")  # Waits in a call that no exception reaches.
            case "eats":
                kept = []
                while True:
                    kept.append(b"x" * 2**20)
                    time.sleep(0.001)
            case "dies":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "differs":
                return Ending(End.WRONG, "1 instead of 2")
            case "refuses" | "warns":
                output = call(_refuse if case.file == "refuses" else _warn)
                return fault_of(output) or Ending(End.REFUSED, output.error or "")
    return Ending(End.EQUAL)
