"""What a checkpoint costs: how long the steps stand still, and what they lose while it is written.

    python -m benchmarks.checkpointing

Steps of synthetic images are timed one by one, as a run takes them: the loss of each is read before
the next one is waited for. In each of --rounds rounds, --steps of them run undisturbed; then the
state is saved, and steps go on until the checkpoint is complete. The first save, which compiles, is
not counted.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.machine import machine
from vit_jax.experiments.synthetic import random_batch, synthetic_program
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.runs.checkpoints import CheckpointConfig, Checkpoints


def main(model: str, image_size: int, batch_size: int, steps: int, rounds: int, to: str) -> None:
    program = synthetic_program(model, batch_size, MeshConfig(), image_size=image_size)
    batch, step, state = random_batch(program), program.step(), program.start()
    size = sum(x.nbytes for x in jax.tree.leaves(state)) / 2**20
    print(f"{model}, {image_size} pixels, batch {batch_size}, {size:,.0f} MiB, {machine()}")

    def take() -> float:
        nonlocal state
        began = time.perf_counter()
        state, metrics = step(state, batch, ())
        jax.device_get(metrics)
        return time.perf_counter() - began

    rows: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory(dir=to or None) as directory,
        Checkpoints(Path(directory) / "checkpoints", CheckpointConfig()) as checkpoints,
    ):
        take()
        _save(checkpoints, 0, state)
        checkpoints.wait()
        for number in range(1, rounds + 1):
            checkpoints.completed()
            alone = [take() for _ in range(steps)]
            blocked = _save(checkpoints, number, state)
            beside, written = [], checkpoints.completed()
            while not written:
                beside.append(take())
                checkpoints.check()
                written = checkpoints.completed()
            rows.append(
                {
                    "a step alone": statistics.median(alone),
                    "a step beside": statistics.mean(beside) if beside else float("nan"),
                    "standing still": blocked,
                    "until complete": written[0],
                    "lost beside": sum(beside) - len(beside) * statistics.median(alone),
                }
            )
    for name in rows[0]:
        values = [row[name] for row in rows]
        listed = ", ".join(f"{value:.3f}" for value in values)
        print(f"{name}: {listed} s; in the median {statistics.median(values):.3f} s")


def _save(checkpoints: Checkpoints, number: int, state: Any) -> float:
    """Seconds that a save of the run keeps the loop waiting."""
    began = time.perf_counter()
    checkpoints.save(number, state)
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-S/16")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--to", default="", help="a folder on the disk to write to")
    main(**vars(parser.parse_args()))
