"""The ways in which a file is damaged."""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One damage to one file.

    Attributes:
      kind: of files, a key of `kinds.KINDS`.
      file: path below the directory that is damaged, or what is asked of a server.
      damage: a key of `DAMAGES`, "none", or an answer of a server.
      variant: what the kind does with the damaged file, such as `skip`.
      number: draws the place of the damage.
      group: the file as the table names it.
    """

    kind: str
    file: str
    damage: str
    variant: str = ""
    number: int = 0
    group: str = ""

    @property
    def key(self) -> str:
        """Names the case; no other has the same."""
        parts = (self.kind, self.file, self.damage, self.variant, str(self.number))
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Donors:
    """What replaces a file; None where there is nothing of that sort."""

    step: Path | None = None
    run: Path | None = None


@dataclass
class _Damage:
    path: Path
    donors: Donors
    rng: random.Random = field(default_factory=random.Random)


def apply(case: Case, path: Path, donors: Donors) -> None:
    """Damages a file or a directory as the case says."""
    if case.damage != "none":
        DAMAGES[case.damage](_Damage(path, donors, random.Random(case.key)))


def damages_of(donors: Donors) -> list[str]:
    """The damages to a file for which there are these donors."""
    lacking = {name for name, donor in _DONOR.items() if getattr(donors, donor) is None}
    return [name for name in DAMAGES if name not in lacking]


def cases_of(
    case: Case, donors: Donors, *, flips: int = 1, only: tuple[str, ...] = ()
) -> list[Case]:
    """A case for each damage to a file; several for bits and lengths, whose place is drawn."""
    counts = {"one bit flipped": flips, "truncated": min(flips, 2)}
    return [
        Case(case.kind, case.file, damage, case.variant, number, case.group)
        for damage in only or damages_of(donors)
        for number in range(counts.get(damage, 1))
    ]


def counterpart(file: Path, root: Path, other: Path) -> Path | None:
    """The file under `other` that takes the place of `file` under `root`.

    Where names are digests, it is the one at the same place in their order.
    """
    relative = file.relative_to(root)
    if (other / relative).exists():
        return other / relative
    folder = (other / relative).parent
    if not folder.is_dir():
        return None
    theirs = sorted(path for path in folder.iterdir() if path.is_file())
    ours = sorted(path for path in file.parent.iterdir() if path.is_file())
    return theirs[min(ours.index(file), len(theirs) - 1)] if theirs else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _empty(damage: _Damage) -> None:
    if damage.path.is_dir():
        _remove(damage.path)
        damage.path.mkdir()
    else:
        os.truncate(damage.path, 0)


def _truncate(damage: _Damage) -> None:
    size = damage.path.stat().st_size
    os.truncate(damage.path, damage.rng.choice([size // 2, max(size - 1, 0), min(size, 9)]))


def _flip(damage: _Damage) -> None:
    data = bytearray(damage.path.read_bytes())
    if data:
        data[damage.rng.randrange(len(data))] ^= 1 << damage.rng.randrange(8)
        damage.path.write_bytes(data)


def _replace(damage: _Damage, donor: Path | None) -> None:
    assert donor is not None
    _remove(damage.path)
    if donor.is_dir():
        shutil.copytree(donor, damage.path)
    else:
        shutil.copyfile(donor, damage.path)


def _instead(make: Callable[[Path], object]) -> Callable[[_Damage], None]:
    def replace(damage: _Damage) -> None:
        _remove(damage.path)
        make(damage.path)

    return replace


DAMAGES: dict[str, Callable[[_Damage], None]] = {
    "deleted": lambda damage: _remove(damage.path),
    "emptied": _empty,
    "truncated": _truncate,
    "one bit flipped": _flip,
    "that of another step": lambda damage: _replace(damage, damage.donors.step),
    "that of another run": lambda damage: _replace(damage, damage.donors.run),
    "a directory": _instead(Path.mkdir),
    "a FIFO": _instead(os.mkfifo),
    "a dangling link": _instead(lambda path: path.symlink_to("nowhere")),
    "an endless device": _instead(lambda path: path.symlink_to("/dev/zero")),
}
_DONOR = {"that of another step": "step", "that of another run": "run"}
# What can happen to a directory as a whole.
OF_DIRECTORIES = (
    *("deleted", "emptied", "that of another step", "that of another run"),
    *("a FIFO", "a dangling link"),
)
