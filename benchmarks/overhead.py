"""What `train` adds to its jitted step: input, metrics and checkpoints, as ratios.

    python -m benchmarks.overhead

Takes turns, --rounds times: the bare step on one batch, `train` on the digits in memory, and
`train` with a checkpoint every --checkpoint_every steps. Each is timed as a whole at two lengths.
The difference is the time of the steps between them: starting, compiling and writing the final
weights drop out, and all costs of the steps stay in.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.machine import machine
from vit_jax.experiments.synthetic import seconds_a_step
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.loop import train
from vit_jax.training.setup import make_loader, prepare

# A checkpoint is saved after the last step in any case.
_NEVER = 10**9


def main(
    model: str, image_size: int, batch_size: int, steps: int, checkpoint_every: int, rounds: int
) -> None:
    print(f"{model}, {image_size} pixels, batch {batch_size}, {machine()}")
    with tempfile.TemporaryDirectory() as directory:
        # All rounds run the same programs.
        jax.config.update("jax_compilation_cache_dir", f"{directory}/programs")

        def config(total: int, every: int) -> TrainConfig:
            values = _values(model, image_size, batch_size, directory)
            return build(
                TrainConfig, values | {"total_steps": total, "checkpoint": {"every_steps": every}}
            )

        def run(name: str, every: int) -> float:
            seconds = []
            for total in (checkpoint_every // 2, checkpoint_every // 2 + steps):
                workdir = Path(directory) / f"{name}{total}{time.monotonic_ns()}"
                began = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()):
                    train(config(total, every), workdir)
                seconds.append(time.perf_counter() - began)
            return (seconds[1] - seconds[0]) / steps

        times: dict[str, list[float]] = {"bare": [], "train": [], "checkpoints": []}
        run("compile", _NEVER)
        for _ in range(rounds):
            times["bare"].append(_bare(config(steps, _NEVER), steps))
            times["train"].append(run("train", _NEVER))
            times["checkpoints"].append(run("checkpoints", checkpoint_every))
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name}: " + ", ".join(f"{1000 * value:.1f}" for value in values) + " ms a step")
    print(
        f"train has {median['bare'] / median['train']:.1%} of the bare step's rate; a checkpoint "
        f"every {checkpoint_every} steps costs {median['checkpoints'] / median['train'] - 1:.1%}"
    )


def _values(model: str, image_size: int, batch_size: int, directory: str) -> dict[str, Any]:
    return {
        "model": {"name": model, "image_size": image_size},
        "data": {
            "dataset": "digits",
            "data_dir": directory,
            "batch_size": batch_size,
            "crop": "none",
            "workers": 0,
        },
        "optimizer": {"lr": 1e-3, "warmup_steps": 10, "clip_norm": 1.0},
        "log_every": 10,
    }


def _bare(config: TrainConfig, steps: int) -> float:
    """Seconds a step on the first batch, again and again."""
    setup = prepare(config)
    with make_loader(setup, start=0) as loader:
        batch = next(loader)
    step, state = setup.program.step(), setup.program.start()
    return seconds_a_step(step, state, batch, warmup=1, steps=steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-Ti/16")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--checkpoint_every", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    main(**vars(parser.parse_args()))
