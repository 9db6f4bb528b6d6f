"""A folder of images in several formats, read for training and by `predict` after damage to one.

`before`: the file is damaged before the folder is listed; `after`: between that and reading it.
`stop` must refuse in one line that names the file, `skip` must leave it out, with a line that names
it, and give all others their pixels, bit for bit. Either may read the file where Pillow, too, makes
an image of its bytes, and then must give the same pixels. What is no file when the folder is listed
is not one of its images.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.damage.damages import Case, Donors, apply, cases_of
from benchmarks.damage.outcomes import End, Ending, Output, call, fault_of, run_command
from benchmarks.damage.reading import read_images, row_key

ALLOWED = (End.EQUAL, End.AS_BYTES, End.LEFT_OUT, End.REFUSED)

_SIDE = 8
_SUFFIXES = ("png", "jpg", "webp", "gif", "bmp", "tiff")
_CLASSES = ("cat", "dog")
_FLIPS = 2


def prepare(root: Path) -> None:
    """Writes two images of each format, one in each class, another folder, and weights."""
    import jax

    from vit_jax.models.config import ModelConfig
    from vit_jax.models.functional import init_params
    from vit_jax.weights.files import write_weights

    rng = np.random.default_rng(0)
    for folder in ("folder", "other"):
        for suffix in _SUFFIXES:
            for name in _CLASSES:
                path = root / folder / "train" / name / f"{suffix}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
                Image.fromarray(pixels).save(path)
    model = ModelConfig(
        "ViT-Ti/2", image_size=_SIDE, depth=1, width=8, mlp_dim=8, num_heads=2, num_classes=2
    ).completed()
    params = jax.tree.map(np.asarray, init_params(model, 0))
    write_weights(root / "w.npz", params, model, class_names=_CLASSES)


def cases(root: Path) -> list[Case]:
    """Each format, damaged before and after the folder is listed; one of them for `predict`."""
    listed = [Case("images", "train/cat/png.png", "none", "skip before", group="(undamaged)")]
    for suffix in _SUFFIXES:
        file = f"train/cat/{suffix}.{suffix}"
        variants = [
            f"{mode} {moment}" for mode in ("stop", "skip") for moment in ("before", "after")
        ]
        for variant in variants:
            case = Case("images", file, "none", variant, group=f"{suffix}, {variant}")
            listed += cases_of(case, _donors(root, file), flips=_FLIPS)
    for suffix in ("png", "jpg"):
        file = f"train/cat/{suffix}.{suffix}"
        case = Case("images", file, "none", "predict", group=f"{suffix}, predict")
        listed += cases_of(case, _donors(root, file), flips=_FLIPS)
    return listed


def run(case: Case, root: Path, scratch: Path) -> Ending:
    """Damages an image of a copied folder, and reads all of them."""
    folder = scratch / "folder"
    shutil.copytree(root / "folder", folder)
    own = _row(root / "folder" / case.file)
    assert own is not None

    def damage() -> None:
        apply(case, folder / case.file, _donors(root, case.file))

    if case.variant == "predict":
        damage()
        return _predict(case, root, folder, own)
    mode, moment = case.variant.split()
    if moment == "before":
        damage()
    output = call(lambda: _read(folder, mode, damage if moment == "after" else lambda: None))
    return judge(case, output, _rows(root / "folder"), own, _row(folder / case.file))


def judge(
    case: Case, output: Output, whole: Counter[bytes], own: bytes, damaged: bytes | None
) -> Ending:
    """How reading the folder ended.

    Args:
      output: its value counts the images by pixels and label.
      whole: the same of the undamaged folder.
      own: the pixels and label of the file before it was damaged.
      damaged: what Pillow makes of it now; None if it makes nothing.
    """
    if fault := fault_of(output):
        return fault
    (mode, moment), name = case.variant.split(), Path(case.file).name
    if output.error is not None:
        if mode == "skip":
            return Ending(End.LOST, output.error)
        end = End.REFUSED if name in output.error else End.LINES
        return Ending(end, output.error)
    assert isinstance(output.value, Counter)
    missing, added = whole - output.value, output.value - whole
    if not missing and not added:
        return Ending(End.EQUAL)
    if missing != Counter([own]):
        return Ending(End.WRONG, f"{missing.total()} images have other pixels")
    if added:
        # An image of another size is resized, which Pillow has no part in.
        same = damaged is not None and (added == Counter([damaged]) or len(damaged) != len(own))
        return Ending(End.AS_BYTES if same else End.WRONG, "pixels that Pillow does not find")
    if moment == "before" and case.damage in ("deleted", "a directory"):
        return Ending(End.LEFT_OUT)  # The folder has no such file.
    if mode == "stop" and not _is_no_file(case):
        return Ending(End.WRONG, "left out, not refused")
    if name not in output.text and "ignored" not in output.text:
        return Ending(End.WRONG, "left out without a word")
    return Ending(End.LEFT_OUT)


def _is_no_file(case: Case) -> bool:
    return "before" in case.variant and case.damage in ("a FIFO", "an endless device")


def _row(path: Path) -> bytes | None:
    """What Pillow makes of a regular file, and its label; None if it makes nothing."""
    if not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception:  # Its decoders raise nearly anything.
        return None
    return row_key(pixels, _CLASSES.index(path.parent.name))


def _rows(folder: Path) -> Counter[bytes]:
    found = (_row(path) for path in folder.rglob("*.*"))
    return Counter(row for row in found if row is not None)


def _read(folder: Path, mode: str, between: Callable[[], object]) -> Counter[bytes]:
    """The pixels of all images of a folder, as training reads them."""
    from vit_jax.data.config import DataConfig
    from vit_jax.data.sources.open import open_source

    source = open_source(str(folder), "train")
    between()
    return read_images(source, DataConfig(str(folder), crop="none", flip=False), mode, _SIDE)


def _predict(case: Case, root: Path, folder: Path, own: bytes) -> Ending:
    """Compares the predictions of all images but the damaged one."""
    output, found = _predictions(root, folder)
    if fault := fault_of(output):
        return fault
    if output.error is not None:
        return Ending(End.LOST, output.error)
    _, expected = _predictions(root, root / "folder")
    this, before = found.pop(case.file, None), expected.pop(case.file)
    if found != expected:
        return Ending(End.WRONG, "other images have other predictions")
    if this == before:
        return Ending(End.EQUAL)
    if this is None or "error" in this:
        return Ending(End.LEFT_OUT, str(this))
    return Ending(End.AS_BYTES if _row(folder / case.file) != own else End.WRONG, str(this))


def _predictions(root: Path, folder: Path) -> tuple[Output, dict[str, dict[str, object]]]:
    """What `predict` prints, and what it writes about each file."""
    lines = folder.parent / f"{os.getpid()}.jsonl"
    lines.unlink(missing_ok=True)
    weights = f"--weights={root / 'w.npz'}"
    output = run_command(["predict", weights, "--images", str(folder), f"--output={lines}"])
    found = {}
    for line in lines.read_text().splitlines() if lines.exists() else ():
        values = json.loads(line)
        found[str(Path(values.pop("image")).relative_to(folder))] = values
    return output, found


def _donors(root: Path, file: str) -> Donors:
    return Donors(None, root / "other" / file)
