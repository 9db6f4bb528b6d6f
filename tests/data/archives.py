"""Archives as ImageNet's are laid out, with small images drawn from numbers."""

import gzip
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def photo(seed: int, height: int = 40, width: int = 50) -> bytes:
    """A JPEG, different for each seed; as in photographs, coarse forms have the most contrast."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128.0)
    for cells in (2, 4, 8, 16, 32):
        noise = rng.integers(0, 256, (cells, cells, 3), np.uint8)
        forms = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        pixels += (np.asarray(forms, np.float64) - 128) / cells
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def tar(files: Iterable[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of files by their names; a name that ends in a slash is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def wordnet_ids(count: int) -> list[str]:
    """Sorted ids, not one after the other."""
    return [f"n{1_000_003 + 7 * i:08d}" for i in range(count)]


Images = Mapping[str, Mapping[str, bytes]]


def images(classes: int, each: int = 4) -> dict[str, dict[str, bytes]]:
    """Images by class and file name."""
    return {
        name: {f"{name}_{i}.JPEG": photo(1000 * label + i) for i in range(each)}
        for label, name in enumerate(wordnet_ids(classes))
    }


def class_tars(of: Images) -> Iterator[tuple[str, bytes]]:
    """The tar of each class, not in their order."""
    for name in reversed(list(of)):
        yield f"{name}.tar", tar(of[name].items())


def write_fall_2011(directory: Path, of: Images) -> None:
    """A tar of class tars."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "fall11_whole.tar").write_bytes(tar(class_tars(of)))


def write_winter_2021(directory: Path, of: Images) -> None:
    """A compressed tar of a folder of class tars."""
    directory.mkdir(parents=True, exist_ok=True)
    folder = [(f"winter21_whole/{name}", data) for name, data in class_tars(of)]
    packed = gzip.compress(tar([("winter21_whole/", b""), *folder]))
    (directory / "winter21_whole.tar.gz").write_bytes(packed)


def write_ilsvrc_2012(directory: Path, train: Images, validation: list[tuple[str, bytes]]) -> None:
    """The three files of ImageNet-1k; ILSVRC numbers the classes from the last to the first.

    Args:
      validation: class and image, in the order of their file names.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ILSVRC2012_img_train.tar").write_bytes(tar(class_tars(train)))
    flat = [(f"ILSVRC2012_val_{i:08d}.JPEG", data) for i, (_, data) in enumerate(validation, 1)]
    (directory / "ILSVRC2012_img_val.tar").write_bytes(tar(flat))
    numbers = {name: number for number, name in enumerate(reversed(list(train)), 1)}
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows: list[tuple[object, ...]] = [
        (n, name, f"words of {name}", 0) for name, n in numbers.items()
    ]
    rows.append((len(rows) + 1, "n00001740", "entity", 2))
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, kind).reshape(-1, 1)})
    truth = "".join(f"{numbers[name]}\n" for name, _ in validation)
    kit = [
        ("ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue()),
        (
            "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
            truth.encode(),
        ),
    ]
    (directory / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(tar(kit)))
