"""The results of one commit, kept in a file so that a later call resumes."""

import dataclasses
import json
import subprocess
from pathlib import Path

from benchmarks.damage.damages import Case
from benchmarks.damage.outcomes import End
from benchmarks.damage.pool import Result
from vit_jax.version import __version__

_ROOT = Path(__file__).resolve().parents[2]


class Record:
    """A file with a result a line.

    Attributes:
      results: those that are there, by case.
    """

    def __init__(self, file: Path):
        self._file = file
        self.results: dict[Case, Result] = {}
        if file.exists():
            for line in file.read_text().splitlines():
                values = json.loads(line)
                case, end = Case(**values.pop("case")), End(values.pop("end"))
                self.results[case] = Result(case, end, **values)

    def add(self, result: Result) -> None:
        """Appends a result."""
        self.results[result.case] = result
        with open(self._file, "a") as file:
            file.write(json.dumps(dataclasses.asdict(result)) + "\n")


def commit() -> str:
    """The last commit of the program; ends in `-dirty` where its files differ from that."""
    last = _git("log", "-1", "--format=%h", "--", "vit_jax") or __version__
    return f"{last}-dirty" if _git("status", "--porcelain", "--", "vit_jax") else last


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
