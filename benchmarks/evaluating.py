"""What an evaluation adds to the bare jitted forward, and how long its model waits for JPEGs.

    python -m benchmarks.evaluating
    python -m benchmarks.evaluating --images=./photos/train

Without --images: pictures of the model's size, decoded already (BMP in memory, so that no resizing
and no decompression remains), go through the jitted forward batch by batch, and through a pass that
scores top-1, top-5 and loss. The two take turns, --rounds times; both are compiled before. CPU time
counts all threads, so that other programs on the machine disturb it little.

With --images: the first --count JPEGs below a folder, decoded by --workers processes, from the
second batch on. What the model waits is counted where it takes its batches; the batch before may
still be computed then, so that the true share is no larger.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import vit_jax
from benchmarks.machine import machine
from vit_jax.data.sources.files import FileSource
from vit_jax.data.sources.records import Record, Source
from vit_jax.evaluation.classification import Classification
from vit_jax.inference.local import on_local_devices
from vit_jax.inference.passes import Pass
from vit_jax.models.functional import apply_model
from vit_jax.models.model import Model
from vit_jax.preprocessing import normalize

# As many different pictures; more would only take memory.
_PICTURES = 64


class Decoded:
    """Pictures of noise, encoded without compression, again and again."""

    name, class_names, max_labels = "decoded", (), None

    def __init__(self, size: tuple[int, int], count: int) -> None:
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (_PICTURES, *size, 3), np.uint8)
        self._count, self._files = count, [_bmp(picture) for picture in self.pixels]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Record:
        return Record(self._files[index % _PICTURES], index % 1000, f"{index}")

    def fingerprint(self) -> str:
        """See `Source`."""
        return self.name


def _bmp(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "BMP")
    return file.getvalue()


def main(
    model: str, image_size: int, batch_size: int, count: int, rounds: int, workers: int, images: str
) -> None:
    print(f"{model}, {image_size} pixels, {count} images, batch {batch_size}, {machine()}")
    scored = vit_jax.create_model(model, image_size=image_size, num_classes=1000, seed=0)
    if images:
        files = [str(path) for path in sorted(Path(images).rglob("*.jpg"))][:count]
        assert len(files) == count, f"{images} has only {len(files)} .jpg files"
        _waiting(scored, FileSource(files), batch_size, rounds, workers)
    else:
        _paired(scored, Decoded((image_size, image_size), count), batch_size, rounds)


def _paired(model: Model, source: Decoded, batch_size: int, rounds: int) -> None:
    preprocessing = model.config.preprocessing
    assert preprocessing is not None
    apply = apply_model(model.config)
    _, params = on_local_devices(model)
    forward = jax.jit(lambda params, images: apply(params, normalize(images, preprocessing)))
    rows = np.arange(len(source)) % _PICTURES

    def bare() -> None:
        for start in range(0, len(source), batch_size):
            part = source.pixels[rows[start : start + batch_size]]
            jax.block_until_ready(forward(params, part))

    jax.block_until_ready(forward(params, source.pixels[rows[:batch_size]]))
    with _pass(model, source, batch_size, workers=0) as each:
        each.compile(params)
        seconds: dict[str, list[float]] = {"bare": [], "evaluation": []}
        runs = {"bare": bare, "evaluation": lambda: each.run(params)}
        for number in range(rounds):
            # Each is first in turn, should the machine slow down or speed up.
            for name in sorted(runs, reverse=bool(number % 2)):
                seconds[name].append(_cpu_seconds(runs[name]) / len(source))
    for name, values in seconds.items():
        print(f"{name}: " + ", ".join(f"{1000 * value:.2f}" for value in values) + " ms an image")
    ratios = [e / b - 1 for b, e in zip(*seconds.values(), strict=True)]
    total = sum(seconds["evaluation"]) / sum(seconds["bare"]) - 1
    print(
        f"an evaluation of {rounds * len(source):,} images takes {total:+.1%} CPU time in all; by "
        f"round {', '.join(f'{ratio:+.1%}' for ratio in ratios)}, in the median "
        f"{statistics.median(ratios):+.1%}"
    )


def _waiting(model: Model, source: Source, batch_size: int, rounds: int, workers: int) -> None:
    _, params = on_local_devices(model)
    with _pass(model, source, batch_size, workers) as each:
        for _ in range(rounds):
            batches = each.stream(params)
            first = next(batches)  # Until then, programs are compiled and workers start.
            waited, began = each.waited, time.perf_counter()
            images = sum(len(batch.readable) for batch in batches)
            spent = time.perf_counter() - began
            print(
                f"{images / spent:.1f} img/s with {workers} workers; the model waits "
                f"{(each.waited - waited) / spent:.1%} of the time at most"
            )
            assert len(first.readable) + images == len(source)


def _pass(model: Model, source: Source, batch_size: int, workers: int) -> Pass[str]:
    mesh, _ = on_local_devices(model)
    requests = Classification(source, None, "softmax").requests
    return Pass(
        model.config, mesh, requests, batch_size=batch_size, workers=workers, on_error="stop"
    )


def _cpu_seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-Ti/16")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--count", type=int, default=250, help="images in a round (250)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2, help="with --images only")
    parser.add_argument("--images", default="", help="a folder of .jpg files")
    main(**vars(parser.parse_args()))
