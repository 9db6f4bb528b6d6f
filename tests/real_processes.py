"""Waiting for what real processes do."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the process must not end before."""
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.001)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    """Returns when the process has printed a line that holds `text`."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"the run ended without a line of {text!r}")


def descendants(pid: int) -> list[int]:
    """Process numbers of the children, and of theirs."""
    listed = [path.read_text() for path in Path("/proc").glob(f"{pid}/task/*/children")]
    own = [int(child) for text in listed for child in text.split()]
    return own + [grandchild for child in own for grandchild in descendants(child)]
