"""Speed of the worker processes beside Grain's, on the same chunks of the same photographs.

    python -m benchmarks.workers --workers=1 2 --rounds=7

Draws --images photographs, and lets both make the same batches of them: decoded, cropped at random
and resized, as in training. A round measures each of them once, in turns, so that other work on the
machine meets both. What the first two batches take, with the start of the processes, is left out.
Prints images a second, the median and the range over the rounds, and the ratio in each round.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags
from PIL import Image

from vit_jax.data.batches import Chunks
from vit_jax.data.loader import ChunksUntil
from vit_jax.data.workers import PREFETCH, in_workers
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import make_chunks, prepare

# Batches that are not measured.
_FIRST = 2


def in_grains_workers(chunks: Chunks, stop: int, count: int) -> Iterator[dict[str, Any]]:
    """As `in_workers`, by Grain's `mp_prefetch`.

    By default each process has 16 threads and reads 500 elements ahead, which is more than is
    measured here. So it gets what ours have: one thread, and two chunks ahead.
    """
    dataset = grain.MapDataset.source(ChunksUntil(chunks, stop)).to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCH)
    )
    return iter(dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=count)))


def speed(chunks: Iterator[dict[str, Any]], per_batch: int, batches: int, batch_size: int) -> float:
    """Images a second of so many batches after the first ones."""
    for _ in range(_FIRST * per_batch):
        next(chunks)
    began = time.perf_counter()
    for _ in range(batches * per_batch):
        next(chunks)
    seconds = time.perf_counter() - began
    if hasattr(chunks, "close"):
        chunks.close()
    return batches * batch_size / seconds


def draw(folder: Path, images: int) -> None:
    """Photographs of 500 x 375 pixels, of noise in several sizes, in two classes."""
    rng = np.random.default_rng(0)
    for number in range(images):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        file = folder / ("a", "b")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(file, quality=90)


def main(workers: Sequence[int], rounds: int, images: int, batch_size: int, batches: int) -> None:
    flags.FLAGS.mark_as_parsed()  # Grain's workers read flags of theirs.
    with tempfile.TemporaryDirectory() as directory:
        draw(Path(directory), images)
        config = {
            "model": {"name": "ViT-B/16"},
            "data": {"dataset": directory, "batch_size": batch_size, "workers": 0},
            **{"optimizer": {}, "total_steps": 10_000, "mesh": {"data": 1}},
        }
        chunks = make_chunks(prepare(build(TrainConfig, config)))
        per_batch = chunks.chunks_per_batch
        stop = (_FIRST + batches) * per_batch
        print(f"| workers | ours (img/s) | Grain {grain.__version__} (img/s) | ours / Grain |")
        print("| --- | --- | --- | --- |")
        for count in workers:
            found: list[tuple[float, float]] = []
            for turn in range(rounds):
                makers = [
                    lambda n=count: in_workers(chunks, 0, stop, n),
                    lambda n=count: in_grains_workers(chunks, stop, n),
                ]
                order = (0, 1) if turn % 2 == 0 else (1, 0)
                got = {i: speed(makers[i](), per_batch, batches, batch_size) for i in order}
                found.append((got[0], got[1]))
            ours, grains = zip(*found, strict=True)
            ratios = [a / b for a, b in found]
            columns = [_spread(ours, ".0f"), _spread(grains, ".0f"), _spread(ratios, ".2f")]
            print(f"| {count} | {' | '.join(columns)} |", flush=True)


def _spread(values: Sequence[float], form: str) -> str:
    middle = statistics.median(values)
    return f"{middle:{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=8, help="that are measured (8)")
    main(**vars(parser.parse_args()))
