"""What `predict` adds to the bare forward and decoding, in CPU time.

    python -m benchmarks.predicting --weights=deit_tiny_patch16_224.safetensors --images=photos/

Takes turns, --rounds times: every image is decoded in one thread and goes through the jitted
forward, batch by batch; and `predict --output=FILE.csv` on the same images. Each is timed at two
lengths. The difference is the cost of the images between them: loading and compiling drop out. CPU
time counts all threads, so that other programs on the machine disturb it little.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks.machine import machine
from vit_jax.__main__ import main as run_command
from vit_jax.data.images.transforms import EvalTransform
from vit_jax.data.sources.reading import read_image_file
from vit_jax.models.functional import apply_model, model_params
from vit_jax.preprocessing import normalize
from vit_jax.weights.load import load_model


def main(weights: str, images: str, batch_size: int, first: int, more: int, rounds: int) -> None:
    files = [str(path) for path in sorted(Path(images).rglob("*.jpg"))][: first + more]
    assert len(files) == first + more, f"{images} has only {len(files)} .jpg files"
    print(f"{Path(weights).name}, {more} images, batch {batch_size}, {machine()}")
    with tempfile.TemporaryDirectory() as directory:
        # All rounds run the same programs.
        jax.config.update("jax_compilation_cache_dir", f"{directory}/programs")
        bare = _bare(weights, batch_size)

        def predict(part: list[str]) -> None:
            output = f"--output={directory}/{time.monotonic_ns()}.csv"
            flags = [f"--weights={weights}", f"--batch_size={batch_size}", output]
            with contextlib.redirect_stderr(io.StringIO()):
                assert run_command(["predict", *flags, "--images", *part]) == 0

        bare(files[:batch_size])
        predict(files[:batch_size])
        seconds: dict[str, list[float]] = {"bare": [], "predict": []}
        for _ in range(rounds):
            for name, run in (("bare", bare), ("predict", predict)):
                spent = [_cpu_seconds(run, files[:count]) for count in (first, first + more)]
                seconds[name].append((spent[1] - spent[0]) / more)
    for name, values in seconds.items():
        print(f"{name}: " + ", ".join(f"{1000 * value:.1f}" for value in values) + " ms an image")
    added = statistics.median(seconds["predict"]) / statistics.median(seconds["bare"]) - 1
    print(f"predict takes {added:+.1%} CPU time an image")


def _cpu_seconds(run: Callable[[list[str]], None], files: list[str]) -> float:
    began = time.process_time()
    run(files)
    return time.process_time() - began


def _bare(weights: str, batch_size: int) -> Callable[[list[str]], None]:
    model = load_model(weights=weights)
    params, apply = model_params(model), apply_model(model.config)
    preprocessing = model.config.preprocessing
    assert preprocessing is not None
    transform = EvalTransform(model.config.input_size, preprocessing)
    forward = jax.jit(lambda params, images: apply(params, normalize(images, preprocessing)))

    def run(files: list[str]) -> None:
        for start in range(0, len(files), batch_size):
            part = files[start : start + batch_size]
            batch = np.stack([transform(read_image_file(file)) for file in part])
            jax.block_until_ready(forward(params, batch))

    return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--first", type=int, default=32)
    parser.add_argument("--more", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    main(**vars(parser.parse_args()))
