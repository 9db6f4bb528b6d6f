"""What a bucket costs a run: its start, a step, an evaluation, a checkpoint; and opening shards.

    python -m benchmarks.bucket run
    python -m benchmarks.bucket open

`run` trains a small ViT on photographs in tars, in turn with data and directory on a disk and in a
bucket, --rounds times. `open` opens a data set of --shards tars in both places, first without an
index of it, then with one. The bucket is the server of the tests on this machine, which waits
--latency seconds before each answer; no network limits its rate.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import machine
from tests.bucket_api import Bucket
from tests.bucket_server import NAME, serving
from vit_jax.data.sources.open import open_source

_CLASSES = 4
_TRAIN = [
    *(sys.executable, "-m", "vit_jax", "train", "--config=configs/quickstart.py", "--report=off"),
    *("--config.model.name=ViT-Ti/16", "--config.model.image_size=64", "--config.model.depth=4"),
    *("--config.data.affine=none", "--config.data.crop=inception", "--config.data.batch_size=64"),
    *("--config.optimizer.warmup_steps=0", "--config.total_steps=60", "--config.log_every=10"),
    *("--config.checkpoint.every_steps=20", "--config.evals.test.every_steps=30"),
]


@contextlib.contextmanager
def slow_bucket(latency: float) -> Iterator[Bucket]:
    """A bucket that this process and those that it starts find."""
    with serving() as server:
        server.faults.latency = latency
        os.environ |= server.environment()
        yield server


def photograph(rng: np.random.Generator, side: int) -> bytes:
    """A JPEG with as many bytes as a photograph of its size."""
    coarse = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def write_tars(folder: Path, split: str, shards: int, images: int, side: int) -> None:
    """WebDataset tars of images, each with a class."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for shard in range(shards):
        with tarfile.open(folder / f"{split}-{shard:05}.tar", "w") as tar:
            for _ in range(images):
                label = f"{number % _CLASSES}".encode()
                for suffix, content in (("jpg", photograph(rng, side)), ("cls", label)):
                    about = tarfile.TarInfo(f"{number:07}.{suffix}")
                    about.size = len(content)
                    tar.addfile(about, io.BytesIO(content))
                number += 1


def one_run(data: str, workdir: str, metrics: Path | Bucket) -> dict[str, float]:
    """Trains; returns seconds by what they were spent on."""
    began = time.perf_counter()
    command = [*_TRAIN, f"--config.data.dataset={data}", f"--workdir={workdir}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    first, output = None, []
    assert process.stdout is not None
    for line in process.stdout:
        output.append(line)
        if first is None and line.startswith("step "):
            first = time.perf_counter() - began
    if process.wait():
        raise SystemExit("".join(output))
    whole = time.perf_counter() - began
    if isinstance(metrics, Path):
        content = (metrics / "metrics.jsonl").read_bytes()
    else:
        objects = metrics.objects.buckets[NAME]
        content = objects[f"{workdir.removeprefix(f'gs://{NAME}/')}/metrics.jsonl"].data
    lines: list[dict[str, Any]] = [json.loads(line) for line in content.splitlines()]

    def median(name: str, factor: float = 1.0) -> float:
        values = [line[name] for line in lines if line.get(name) is not None]
        return factor * statistics.median(values) if values else float("nan")

    speeds = [line["time/images_per_second"] for line in lines if "time/images_per_second" in line]
    return {
        "to the first line of steps": first or float("nan"),
        "a step": 64 / statistics.median(speeds[1:]),
        "of it, waiting for data": median("time/data_wait") * 64 / statistics.median(speeds[1:]),
        "an evaluation": median("time/evaluation/test"),
        "a checkpoint, standing still": median("time/checkpoint_wait"),
        "a checkpoint, until it is whole": median("time/checkpoint_write"),
        "the whole run": whole,
    }


def compare_runs(rounds: int, latency: float) -> None:
    """Prints the table of `run`."""
    with tempfile.TemporaryDirectory() as directory, slow_bucket(latency) as bucket:
        root = Path(directory)
        write_tars(root / "data", "train", 8, 100, 160)
        write_tars(root / "data", "test", 2, 100, 160)
        bucket.objects.add_folder(root / "data", NAME, "data")
        rows: dict[str, list[dict[str, float]]] = {"disk": [], "bucket": []}
        for number in range(rounds):
            workdir = root / f"run{number}"
            rows["disk"].append(one_run(str(root / "data"), str(workdir), workdir))
            remote = f"gs://{NAME}/run{number}"
            rows["bucket"].append(one_run(f"gs://{NAME}/data", remote, bucket))
            print(json.dumps({where: found[-1] for where, found in rows.items()}), flush=True)
        print(f"{machine()}; answers after {latency:g} s; medians of {rounds} rounds\n")
        print("| seconds | disk | bucket |\n| --- | --- | --- |")
        for name in rows["disk"][0]:
            cells = [_spread([row[name] for row in rows[where]]) for where in rows]
            print(f"| {name} | {' | '.join(cells)} |")
        counts: dict[str, int] = {}
        for (kind, _), count in bucket.faults.counts.items():
            counts[kind] = counts.get(kind, 0) + count
        print(f"\nrequests of all runs in the bucket: {counts}")


def compare_openings(shards: int, latency: float) -> None:
    """Prints the table of `open`."""
    with tempfile.TemporaryDirectory() as directory, slow_bucket(latency) as bucket:
        root = Path(directory)
        os.environ["VIT_JAX_CACHE"] = str(root / "cache")
        write_tars(root / "data", "train", shards, 4, 16)
        bucket.objects.add_folder(root / "data", NAME, "data")
        print(f"{machine()}; {shards:,} tars of 4 images; answers after {latency:g} s\n")
        print("| | without an index | with one | the first record |\n| --- | --- | --- | --- |")
        for where, dataset in (("disk", str(root / "data")), ("bucket", f"gs://{NAME}/data")):
            seconds = []
            for _ in range(2):
                began = time.perf_counter()
                source = open_source(dataset, "train")
                seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
            assert source[len(source) // 2].problem is None
            seconds.append(time.perf_counter() - began)
            print(f"| {where} | {' | '.join(f'{each:.2f} s' for each in seconds)} |")


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def main() -> None:
    """Runs one of the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "open"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds (0.05)")
    given = parser.parse_args()
    if given.what == "run":
        compare_runs(given.rounds, given.latency)
    else:
        compare_openings(given.shards, given.latency)


if __name__ == "__main__":
    main()
