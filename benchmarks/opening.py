"""Seconds and memory until the first batch of a large source of shards, at any step.

    python -m benchmarks.opening --records=14000000 --shards=2000
    python -m benchmarks.opening --records=140000 --shards=2000 --latency=0.05

Makes a TFDS data set in TFRecord whose shards are links to one file, so that 14 million records
take little room. Each measurement is a new process: the first one builds the index, the others
find it. Then each makes the first batch of 256 shuffled records at steps 0 and 1,000,000, in two
workers that decode nothing. Memory is that of the main process and, in brackets, of its largest
worker. With --latency, the data set lies in a bucket that a process of this machine serves, with so
many seconds before each answer; an opening by another host finds the index in the bucket alone.

    python -m benchmarks.opening --records=1280000 --shards=1000 --form=tars

does the same with WebDataset tars, and

    python -m benchmarks.opening --records=14000000 --shards=2000 --form=array_record

with ArrayRecord, which needs no index; from a bucket, the first opening copies all shards.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import google_crc32c

_STEPS = (0, 1_000_000)
_BATCH = 256
_NAME = "many"


def main(records: int, shards: int, form: str, latency: float | None) -> None:
    print(f"{records:,} records in {shards:,} shards, {form}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        dataset = _MAKERS[form](root / "data", records // shards, shards)
        environment = os.environ | {"VIT_JAX_CACHE": str(root / "cache")}
        if latency is None:
            _measure_all(dataset, str(root / "data"), environment)
        else:
            _in_bucket(root, dataset, latency, environment)


def _measure_all(dataset: str, place: str, environment: dict[str, str]) -> None:
    for what in ("opened first", "opened again"):
        _measure(what, dataset, place, None, environment)
    for step in _STEPS:
        _measure(f"first batch at step {step:,}", dataset, place, step, environment)


def _in_bucket(root: Path, dataset: str, latency: float, environment: dict[str, str]) -> None:
    server = [sys.executable, "-m", "tests.bucket_server"]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        environment = environment | {"STORAGE_EMULATOR_HOST": address}
        os.environ["STORAGE_EMULATOR_HOST"] = address
        try:
            from vit_jax.storage import objects

            for path in (root / "data").rglob("*"):
                if path.is_file():
                    place = f"gs://bkt/{path.relative_to(root / 'data')}"
                    objects.write_bytes(place, path.read_bytes())
            settings = json.dumps({"latency": latency}).encode()
            urllib.request.urlopen(f"{address}/faults", settings).read()
            _measure_all(dataset, "gs://bkt", environment)
            other = environment | {"VIT_JAX_CACHE": str(root / "other_cache")}
            _measure("opened by another host", dataset, "gs://bkt", None, other)
        finally:
            process.terminate()


def _measure(
    what: str, dataset: str, place: str, step: int | None, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "benchmarks.opening", f"--dataset={dataset}"]
    command += [f"--place={place}", *([] if step is None else [f"--step={step}"])]
    printed = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    print(f"{what}: {printed.strip()}", flush=True)


def measure(dataset: str, place: str, step: int | None) -> None:
    """Opens the data set, takes a batch if a step is given, and prints what it took."""
    import numpy as np

    from vit_jax.data.batches import Chunks
    from vit_jax.data.sources.open import open_source
    from vit_jax.data.workers import in_workers

    began = time.perf_counter()
    path = f"{place}/{dataset}" if "{" in dataset else dataset
    source = open_source(path, "train", data_dir=place)
    opened = time.perf_counter() - began
    printed = f"{len(source):,} records opened in {opened:.2f} s"
    if step is not None:
        chunks = Chunks(source, _no_pixels, (8, 8), np.arange(_BATCH), _BATCH, seed=0, shuffle=True)
        first = step * chunks.chunks_per_batch
        began = time.perf_counter()
        made = in_workers(chunks, first, first + 2 * chunks.chunks_per_batch, 2)
        rows = [next(made)["weights"].sum() for _ in range(chunks.chunks_per_batch)]
        assert sum(rows) == _BATCH
        printed += f", batch after {time.perf_counter() - began:.2f} s more"
        made.close()
    memory = [
        resource.getrusage(who).ru_maxrss / 2**20
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(f"{printed}, {memory[0]:.2f} GiB ({memory[1]:.2f} GiB)")


def _no_pixels(image: bytes, rng: object) -> "np.ndarray":  # type: ignore[name-defined]  # noqa: F821
    import numpy as np

    return np.zeros((8, 8, 3), np.uint8)


def make_tfrecord(root: Path, records: int, shards: int) -> str:
    """Writes a TFDS data set of so many records a shard; returns its name."""

    def write(path: Path, payload: bytes) -> None:
        length = len(payload).to_bytes(8, "little")
        frame = length + _masked_crc(length) + payload + _masked_crc(payload)
        path.write_bytes(frame * records)

    return _make_tfds(root, "tfrecord", records, shards, write)


def make_array_record(root: Path, records: int, shards: int) -> str:
    """As `make_tfrecord`."""
    from array_record.python.array_record_module import ArrayRecordWriter

    def write(path: Path, payload: bytes) -> None:
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for _ in range(records):
            writer.write(payload)
        writer.close()

    return _make_tfds(root, "array_record", records, shards, write)


def _make_tfds(
    root: Path, form: str, records: int, shards: int, write: Callable[[Path, bytes], None]
) -> str:
    import tensorflow_datasets as tfds

    directory = root / _NAME / "1.0.0"
    directory.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=10)}
    )
    features.save_config(str(directory))
    split = {"name": "train", "shardLengths": [str(records)] * shards, "numBytes": "1"}
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info = {
        **{"name": _NAME, "version": "1.0.0", "fileFormat": form},
        "splits": [split | {"filepathTemplate": template}],
    }
    (directory / "dataset_info.json").write_text(json.dumps(info))
    first = directory / f"{_NAME}-train.{form}-00000-of-{shards:05}"
    write(first, features.serialize_example({"image": _png(), "label": 3}))
    for number in range(1, shards):
        os.link(first, first.with_name(f"{_NAME}-train.{form}-{number:05}-of-{shards:05}"))
    return f"{_NAME}:1.0.0"


def make_tars(root: Path, records: int, shards: int) -> str:
    """Writes tars of so many samples each; returns their pattern."""
    root.mkdir(parents=True)
    first = root / "train-00000.tar"
    with tarfile.open(first, "w") as tar:
        for number in range(records):
            for extension, content in (("png", _png()), ("cls", b"3")):
                about = tarfile.TarInfo(f"{number:06}.{extension}")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    for number in range(1, shards):
        os.link(first, root / f"train-{number:05}.tar")
    return f"train-{{00000..{shards - 1:05}}}.tar"


def _png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


_MAKERS = {"tfrecord": make_tfrecord, "tars": make_tars, "array_record": make_array_record}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=14_000_000)
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--form", choices=sorted(_MAKERS), default="tfrecord")
    parser.add_argument("--latency", type=float, help="seconds; then the data lies in a bucket")
    for hidden in ("dataset", "place"):
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    parser.add_argument("--step", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.dataset:
        measure(flags.dataset, flags.place, flags.step)
    else:
        main(flags.records, flags.shards, flags.form, flags.latency)
