"""Speed, sizes and memory of `prepare`, and how well copies of test images are told from others.

    python -m benchmarks.preparing sizes --images=DIR
    python -m benchmarks.preparing classes --classes=20000 --each=5
    python -m benchmarks.preparing twins --images=DIR

`sizes` prepares a folder of photographs at several sizes, in one process. `classes` generates an
archive as that of ImageNet-21k, with small images, and prepares it; it prints the largest memory of
the process. `twins` compares each photograph with copies of it and with all others.
"""

import argparse
import io
import itertools
import os
import re
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

_SIDES = (None, 512, 256)
# As many as ImageNet's validation images.
_TEST_IMAGES = 50_000


def sizes(images: str) -> None:
    """Prints images in a second of processor time, and bytes an image, for each short side."""
    from vit_jax.data.preparation.prepare import prepare
    from vit_jax.data.sources.open import open_source
    from vit_jax.data.sources.own_splits import own_splits

    count = sum(len(open_source(images, split)) for split in own_splits(images))
    print("| `--short_side` | img/s of a processor | KB an image |\n| --- | --- | --- |")
    for side in _SIDES:
        with tempfile.TemporaryDirectory() as directory:
            began = time.process_time()
            written = Path(prepare(images, directory, name="images", short_side=side))
            seconds = time.process_time() - began
            size = sum(path.stat().st_size for path in written.glob("*.array_record*"))
        print(f"| {side or 'none'} | {count / seconds:,.0f} | {size / count / 1e3:,.1f} |")


def classes(number: int, each: int, workers: int) -> None:
    """Prints seconds and the largest memory of a preparation of many classes."""
    with tempfile.TemporaryDirectory() as directory:
        _write_archive(Path(directory), number, each)
        for step in ("index", "prepare"):
            command = [sys.executable, "-m", "benchmarks.preparing", step]
            command += [f"--images={directory}", f"--workers={workers}"]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end=""
            )


def _write_archive(directory: Path, number: int, each: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 100, 50)).save(buffer, "JPEG")
    with tarfile.open(directory / "fall11_whole.tar", "w") as outer:
        for label in range(number):
            name, inner = f"n{label:08d}", io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for image in range(each):
                    entry = tarfile.TarInfo(f"{name}_{image}.JPEG")
                    entry.size = buffer.getbuffer().nbytes
                    archive.addfile(entry, io.BytesIO(buffer.getvalue()))
            entry = tarfile.TarInfo(f"{name}.tar")
            entry.size = inner.getbuffer().nbytes
            inner.seek(0)
            outer.addfile(entry, inner)


def index(directory: str, workers: int) -> None:
    """Finds the images of an archive; a process of its own, so that its memory is known."""
    from vit_jax.data.preparation.imagenet21k import open_imagenet21k

    before = _memory()
    began = time.monotonic()
    source = open_imagenet21k(Path(directory), Path(directory, "work"), workers)["full"]
    source.labels()
    _print(f"index of {len(source):,} images of {len(source.class_names):,} classes", began, before)


def prepared(directory: str, workers: int) -> None:
    """Prepares an archive; a process of its own, so that its memory is known."""
    from vit_jax.data.preparation.prepare import prepare

    before = _memory()
    began = time.monotonic()
    prepare(
        "imagenet21k", f"{directory}/data", archives=directory, workers=workers, shard_bytes=2**24
    )
    _print("preparation", began, before)


def _memory() -> float:
    """MB that this process took at most.

    The kernel's count for `getrusage` begins with what the process took that started this one.
    """
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1e3


def _print(what: str, began: float, before: float) -> None:
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(
        f"{what}: {time.monotonic() - began:,.1f} s, at most {_memory():,.0f} MB, of which "
        f"{before:,.0f} for imports; a worker {children:,.0f} MB"
    )


def twins(images: str) -> None:
    """Prints how far the hashes of copies and of different images are apart."""
    from vit_jax.data.images.decoding import decode
    from vit_jax.data.preparation.twins import THRESHOLD, nearest, perceptual_hash

    paths = sorted(path for path in Path(images).rglob("*.jpg"))
    opened = [decode(path.read_bytes()) for path in paths]
    began = time.process_time()
    hashes = np.stack([perceptual_hash(image) for image in opened])
    hashed = time.process_time()
    columns = np.random.default_rng(0).integers(0, 2**64, (4, _TEST_IMAGES), np.uint64)
    searched = time.process_time()
    for each in hashes:
        nearest(columns, each)
    ended = time.process_time()
    print(
        f"{len(paths):,} images; {(hashed - began) / len(paths) * 1e3:.2f} ms of a processor to "
        f"hash one, {(ended - searched) / len(paths) * 1e3:.2f} ms to search {_TEST_IMAGES:,}\n"
    )
    print("| copy | median | largest | found |\n| --- | --- | --- | --- |")
    for name, copy in _COPIES.items():
        copies = np.stack([perceptual_hash(copy(image)) for image in opened])
        apart = np.bitwise_count(hashes ^ copies).sum(1)
        found = np.mean(apart <= THRESHOLD)
        print(f"| {name} | {np.median(apart):.0f} | {apart.max()} | {found:.1%} |")
    near, pairs = [], len(paths) * (len(paths) - 1) // 2
    for first, one in enumerate(hashes):
        apart = np.bitwise_count(hashes[first + 1 :] ^ one).sum(1)
        near += [(int(apart[i]), first, first + 1 + i) for i in np.flatnonzero(apart <= 64)]
    print(f"\n{pairs:,} pairs of different images:")
    for limit in (8, THRESHOLD, 24, 32, 48, 64):
        print(f"  at most {limit} bits: {sum(each[0] <= limit for each in near)}")
    for apart, one, other in itertools.islice(sorted(near), 5):
        print(f"  {apart} bits: {paths[one]} {paths[other]}")


def _encoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def _reduced(image: Image.Image, side: int) -> Image.Image:
    scale = side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return _encoded(image.resize(size, Image.Resampling.BICUBIC), 85)


def _cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 40, height // 40, width - width // 40, height - height // 40))


_COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 30": lambda image: _encoded(image, 30),
    "short side 256": lambda image: _reduced(image, 256),
    "short side 64": lambda image: _reduced(image, 64),
    "short side 32": lambda image: _reduced(image, 32),
    "squeezed to 224x224": lambda image: image.resize((224, 224), Image.Resampling.BILINEAR),
    "a fifth brighter": lambda image: image.point(lambda value: min(int(value * 1.2), 255)),
    "a fortieth cut from each side": _cropped,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("sizes", "classes", "twins", "index", "prepare"))
    parser.add_argument("--images", default=".", help="a folder of photographs")
    parser.add_argument("--classes", type=int, default=20_000)
    parser.add_argument("--each", type=int, default=5, help="images of a class")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    if arguments.what == "sizes":
        sizes(arguments.images)
    elif arguments.what == "twins":
        twins(arguments.images)
    elif arguments.what == "classes":
        classes(arguments.classes, arguments.each, arguments.workers)
    elif arguments.what == "index":
        index(arguments.images, arguments.workers)
    else:
        prepared(arguments.images, arguments.workers)
