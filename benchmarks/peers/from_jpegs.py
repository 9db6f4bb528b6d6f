"""Training from JPEGs on all cores, ours and timm's: speed, and the share of time without data.

    python -m benchmarks.peers.from_jpegs
    python -m benchmarks.peers.from_jpegs --model=ViT-Ti/16 --batch_size=8 --steps=4 --images=64 \\
        --rounds=1

Writes JPEGs of 500 x 375 pixels and quality 90 to a temporary folder, and trains on them with
random crops and flips: `train` of ours with its own workers, which needs all that the package
installs, and timm's model, compiled on a GPU, behind PyTorch's loader with timm's transform and as
many workers. They take turns in both orders, each in a new process; compiling and the first steps
are not timed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.case import CLIP_NORM, RATE, WEIGHT_DECAY
from benchmarks.peers.rounds import orders

SIDES = ("ours", "timm")
_CLASSES = 8
_WIDTH, _HEIGHT, _QUALITY = 500, 375, 90
_SIZE = 224


def main(model: str, batch_size: int, steps: int, images: int, rounds: int) -> None:
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    print(f"{model} at {_SIZE}, batch {batch_size}, {_cores()} cores\n")
    with tempfile.TemporaryDirectory() as directory:
        write_images(Path(directory) / "train", images)
        values = json.dumps([directory, model, batch_size, steps])
        for side in orders(SIDES, rounds):
            ran = subprocess.run(
                [sys.executable, "-m", "benchmarks.peers.from_jpegs", f"--side={side}", values],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            results[side].append(json.loads(ran.stdout.splitlines()[-1]))
    print("| | images a second | share of time waiting for data |\n| --- | --- | --- |")
    for side, found in results.items():
        speed, wait = (statistics.median(each[key] for each in found) for key in ("speed", "wait"))
        print(f"| {side} | {speed:,.1f} | {wait:.1%} |")


def write_images(folder: Path, count: int) -> None:
    """JPEGs with the detail of photographs at a few scales, in a folder for each class."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        mixed = np.zeros((_HEIGHT, _WIDTH, 3), np.float32)
        for side in (8, 32, 128):
            noise = rng.integers(0, 256, (side, side, 3), np.uint8)
            mixed += np.asarray(Image.fromarray(noise).resize((_WIDTH, _HEIGHT)), np.float32) / 3
        path = folder / str(i % _CLASSES) / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mixed.astype(np.uint8)).save(path, quality=_QUALITY)


def ours(folder: str, model: str, batch_size: int, steps: int) -> dict[str, float]:
    """The speed and the wait that `train` logs of the second half of twice the steps."""
    import jax

    import vit_jax
    from vit_jax.schema import build
    from vit_jax.training.config import TrainConfig

    dtype = "bfloat16" if jax.default_backend() == "gpu" else "float32"
    values = {
        "model": {"name": model, "image_size": _SIZE, "dtype": dtype},
        "data": {"dataset": folder, "batch_size": batch_size, "workers": _cores()},
        "optimizer": {"lr": RATE, "weight_decay": WEIGHT_DECAY, "clip_norm": CLIP_NORM},
        "total_steps": 2 * steps,
        "log_every": steps,
    }
    with tempfile.TemporaryDirectory() as workdir:
        vit_jax.train(build(TrainConfig, values), workdir)
        lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
    logged = [line for line in map(json.loads, lines) if "time/data_wait" in line][-1]
    return {"speed": logged["time/images_per_second"], "wait": logged["time/data_wait"]}


def timm(folder: str, model: str, batch_size: int, steps: int) -> dict[str, float]:
    """The same of timm's model and transform behind PyTorch's loader."""
    import torch

    from benchmarks.peers import case, timm_vit

    is_gpu = timm_vit.DEVICE.type == "cuda"
    described = case.model(model, False, "bfloat16" if is_gpu else "float32")
    training = timm_vit.Training(case.Case("train", described, batch_size), None, compiled=is_gpu)
    # After `timm_vit`, which makes torchvision importable.
    from timm.data import create_transform
    from torchvision.datasets import ImageFolder

    transform = create_transform(_SIZE, is_training=True, color_jitter=None, use_prefetcher=True)
    images = ImageFolder(f"{folder}/train", transform)
    sampler = torch.utils.data.RandomSampler(images, True, 2 * steps * batch_size)
    loader: Any = torch.utils.data.DataLoader(
        images, batch_size, sampler=sampler, num_workers=_cores(), pin_memory=is_gpu
    )
    batches, waited = iter(loader), 0.0
    for i in range(2 * steps):
        if i == steps:
            began, waited = time.perf_counter(), 0.0
        asked = time.perf_counter()
        pixels, labels = next(batches)
        waited += time.perf_counter() - asked
        training.step(pixels, labels)
    timm_vit.wait()
    seconds = time.perf_counter() - began
    return {"speed": steps * batch_size / seconds, "wait": waited / seconds}


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-B/16")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=50, help="that are timed")
    parser.add_argument("--images", type=int, default=4096, help="that are written")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("values", nargs="?", help=argparse.SUPPRESS)
    arguments = vars(parser.parse_args())
    chosen, given = arguments.pop("side"), arguments.pop("values")
    if chosen is None:
        main(**arguments)
    else:
        print(json.dumps({"ours": ours, "timm": timm}[chosen](*json.loads(given))))
