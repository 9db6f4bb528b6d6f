"""The kinds of files that are damaged; each is a module of this package."""

import importlib
from pathlib import Path
from typing import Protocol, cast

from benchmarks.damage.damages import Case
from benchmarks.damage.outcomes import End, Ending

KINDS = {
    name: f"benchmarks.damage.{name}"
    for name in ("checkpoints", "weights", "images", "records", "downloads")
}


class Kind(Protocol):
    """What such a module offers."""

    ALLOWED: tuple[End, ...]

    def prepare(self, root: Path) -> None:
        """Makes what is to be damaged, in an empty directory."""

    def cases(self, root: Path) -> list[Case]:
        """The cases of what `prepare` has made; the first is undamaged."""

    def run(self, case: Case, root: Path, scratch: Path) -> Ending:
        """Damages a copy in an empty directory, uses it, and says how that ended."""


def kind_of(name: str) -> Kind:
    """The module of a kind, by its key or by its full name."""
    return cast(Kind, importlib.import_module(KINDS.get(name, name)))
