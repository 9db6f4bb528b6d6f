"""A process that runs case after case, so that what is imported and compiled serves all of them.

It reads requests from its standard input and answers on its standard output, a line of JSON each.
"""

import contextlib
import dataclasses
import gc
import json
import os
import re
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks.damage.damages import Case
from benchmarks.damage.kinds import kind_of
from benchmarks.damage.outcomes import End, Ending


def main(root: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What is printed between cases is no answer.
    scratch = root / f"scratch{os.getpid()}"
    count = 0
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "prepare" in request:
            answer: Any = _prepare(request["prepare"], root)
        else:
            # Under a new name each time: the program remembers folders that it has listed.
            count += 1
            answer = _run(Case(**request["case"]), root, scratch / str(count))
        print(json.dumps(answer), file=answers, flush=True)
    shutil.rmtree(scratch, ignore_errors=True)


def _prepare(name: str, root: Path) -> list[dict[str, Any]]:
    kind, directory = kind_of(name), root / name
    if not (directory / "prepared").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        kind.prepare(directory)
        (directory / "prepared").touch()
    return [dataclasses.asdict(case) for case in kind.cases(directory)]


def _run(case: Case, root: Path, scratch: Path) -> dict[str, Any]:
    scratch.mkdir(parents=True)
    _reset_peak()
    before = _kilobytes("VmRSS")
    try:
        ending = kind_of(case.kind).run(case, root / case.kind, scratch)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        ending = Ending(End.TRACEBACK, f"{text} ({Path(frame.filename).name}:{frame.lineno})")
    if case.damage == "none" and ending.end != End.EQUAL:
        ending = Ending(End.WRONG, f"undamaged: {ending.end}: {ending.detail}")
    peak = max(_kilobytes("VmHWM") - before, 0) // 1024
    shutil.rmtree(scratch, ignore_errors=True)
    gc.collect()
    detail = ending.detail.replace(f"{scratch}/", "")  # The same on every machine.
    return {"end": ending.end, "detail": detail, "megabytes": peak}


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _kilobytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found.group(1)) if found else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
