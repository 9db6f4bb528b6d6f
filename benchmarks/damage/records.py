"""A TFDS data set in ArrayRecord shards, read after damage to one of its files.

`stop` must refuse in one line, `skip` must leave out what cannot be read, with a line about it, and
give all other images their pixels, bit for bit. A shard or a description that cannot be opened at
all may be refused with `skip` too.
"""

import re
import shutil
from collections import Counter
from pathlib import Path

from benchmarks.damage.damages import Case, Donors, apply, cases_of
from benchmarks.damage.outcomes import End, Ending, Output, call, fault_of
from benchmarks.damage.reading import read_images

ALLOWED = (End.EQUAL, End.STATED, End.LEFT_OUT, End.REFUSED)

_NAME, _SPLIT, _SIDE = "pictures", "test", 8
_FLIPS = 8


def prepare(root: Path) -> None:
    """Prepares the digits as a data set that no code makes anew, and a copy with other records."""
    from vit_jax.data.sources.open import open_source

    open_source("digits", _SPLIT, data_dir=str(root / "made"))
    made = root / "made/digits/1.0.0"
    for name, split in (("data", _SPLIT), ("other", "train")):
        folder = root / name / _NAME / "1.0.0"
        folder.mkdir(parents=True)
        for path in made.iterdir():
            if path.suffix in (".json", ".txt"):
                text = re.sub('(?<=["/])digits', _NAME, path.read_text())
                (folder / path.name).write_text(text)
        for shard in made.glob(f"*-{split}.*"):
            name_here = shard.name.replace("digits", _NAME).replace(split, _SPLIT)
            shutil.copyfile(shard, folder / name_here)


def cases(root: Path) -> list[Case]:
    """Each file of the data set."""
    listed: list[Case] = []
    for mode in ("stop", "skip"):
        for path in sorted((root / "data").rglob("*")):
            if path.is_file():
                file = str(path.relative_to(root / "data"))
                if not listed:
                    listed.append(Case("records", file, "none", mode, group="(undamaged)"))
                case = Case("records", file, "none", mode, group=f"{path.name}, {mode}")
                flips = _FLIPS if "array_record" in path.name else 4
                listed += cases_of(case, _donors(root, file), flips=flips)
    return listed


def run(case: Case, root: Path, scratch: Path) -> Ending:
    """Damages a file of a copied data set, and reads a split of it."""
    shutil.copytree(root / "data", scratch / "data")
    apply(case, scratch / "data" / case.file, _donors(root, case.file))
    output = call(lambda: _read(scratch / "data", case.variant))
    return judge(case, output, *_read(root / "data", "stop"))


def judge(
    case: Case, output: Output, whole: Counter[bytes], class_names: tuple[str, ...]
) -> Ending:
    """How reading ended.

    Args:
      output: its value is the images by pixels and label, and the names of the classes.
      whole: the same images of the undamaged data.
      class_names: the same names.
    """
    if fault := fault_of(output):
        return fault
    if output.error is not None:
        return Ending(End.REFUSED, output.error)
    assert isinstance(output.value, tuple)
    found, names = output.value
    missing, added = whole - found, found - whole
    if added:
        return Ending(End.WRONG, f"{added.total()} images that are not in the data")
    if names != class_names:
        is_text = case.file.endswith((".txt", ".json"))
        return Ending(End.STATED if is_text else End.WRONG, f"classes {names}")
    if not missing:
        return Ending(End.EQUAL)
    if case.variant == "stop":
        return Ending(End.WRONG, f"{missing.total()} images are left out, not refused")
    if "skipped" not in output.text:
        return Ending(End.WRONG, f"{missing.total()} images are left out without a word")
    return Ending(End.LEFT_OUT, f"{missing.total()} images")


def _read(data_dir: Path, mode: str) -> tuple[Counter[bytes], tuple[str, ...]]:
    from vit_jax.data.config import DataConfig
    from vit_jax.data.sources.open import open_source

    source = open_source(_NAME, _SPLIT, data_dir=str(data_dir))
    data = DataConfig(_NAME, crop="none", flip=False)
    return read_images(source, data, mode, _SIDE), source.class_names


def _donors(root: Path, file: str) -> Donors:
    """The shard of another split; the data set has no other steps."""
    return Donors(None, root / "other" / file if "array_record" in file else None)
