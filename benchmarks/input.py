"""Speed of decoding, cropping and resizing beside other libraries, and what the pipeline adds.

    python -m benchmarks.input
    python -m benchmarks.input --data=FOLDER --rounds=31 --workers 1 2 4

Makes JPEGs of 500 x 375 pixels and quality 90 from the pictures of a folder, or from the two that
come with scikit-learn. Each way decodes each of them, crops the box that `sample_crop` draws, and
resizes to 224 x 224. All run in this process, 16 images by one way after the other, in another
order each time, so that other work on the machine meets all of them. Prints milliseconds of CPU
time an image, the lower quartile and the range over the rounds; how many times as long as ours a
way takes, the median and the range of the rounds' ratios; and how far the pixels are from the
float64 value of the pixels that Pillow decodes.

Then the whole pipeline with RandAugment: the CPU time of the worker processes and of this one,
beside that of the transform alone, which makes the same images in this process in turns with it.

OpenCV and simplejpeg come with this package. TensorFlow is measured where it is installed.
"""

import argparse
import importlib.util
import io
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import PIL
import psutil
import simplejpeg
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.machine import versions
from vit_jax.data.images.crops import resize_crop
from vit_jax.data.images.geometry import resize, sample_crop
from vit_jax.data.images.jpeg import Box, crop, decode_array
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import Setup, make_chunks, make_loader, prepare

SIZE = (224, 224)
AREA = (0.05, 1.0)
# Images that one way makes at a time.
_AT_ONCE = 16
# Batches of the pipeline that are not measured.
_FIRST_BATCHES = 2

# Takes a JPEG and a box of it, and gives uint8 [224, 224, 3].
Way = Callable[[bytes, Box], np.ndarray]


def pictures(folder: str | None, count: int) -> list[bytes]:
    """JPEGs of 500 x 375 pixels and quality 90: parts of pictures at several scales."""
    if folder is None:
        found = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    else:
        paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        found = [Image.open(path).convert("RGB") for path in paths[:count]]
    rng, made = np.random.default_rng(0), []
    for number in range(count):
        image = found[number % len(found)]
        share = min(image.width / 4, image.height / 3) * rng.uniform(0.7, 1)
        left = rng.uniform(0, image.width - 4 * share)
        top = rng.uniform(0, image.height - 3 * share)
        box = (left, top, left + 4 * share, top + 3 * share)
        file = io.BytesIO()
        image.resize((500, 375), Image.Resampling.BICUBIC, box).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def by_pillow(data: bytes, box: Box, *, antialias: bool) -> np.ndarray:
    # Not with `box=`: the pixels around a crop would take part in it.
    image = Image.open(io.BytesIO(data)).crop(box)
    if antialias:
        return np.asarray(image.resize(SIZE[::-1], Image.Resampling.BILINEAR))
    whole = (0, 0, *image.size)
    return np.asarray(
        image.transform(SIZE[::-1], Image.Transform.EXTENT, whole, Image.Resampling.BILINEAR)
    )


def by_simplejpeg_and_pillow(data: bytes, box: Box) -> np.ndarray:
    pixels = crop(simplejpeg.decode_jpeg(data), box)
    return np.asarray(Image.fromarray(pixels).resize(SIZE[::-1], Image.Resampling.BILINEAR))


def by_opencv(data: bytes, box: Box, *, interpolation: int) -> np.ndarray:
    pixels = crop(simplejpeg.decode_jpeg(data), box)
    return cv2.resize(pixels, SIZE[::-1], interpolation=interpolation)


def by_opencv_in_floats(data: bytes, box: Box) -> np.ndarray:
    pixels = crop(simplejpeg.decode_jpeg(data), box).astype(np.float32)
    return cv2.convertScaleAbs(cv2.resize(pixels, SIZE[::-1], interpolation=cv2.INTER_LINEAR))


def by_tensorflow(data: bytes, box: Box, *, antialias: bool) -> np.ndarray:
    import tensorflow as tf

    left, top, right, bottom = box
    pixels = tf.image.decode_and_crop_jpeg(data, [top, left, bottom - top, right - left])
    resized = tf.image.resize(pixels, SIZE, antialias=antialias)
    return tf.cast(tf.round(resized), tf.uint8).numpy()


def by_us(data: bytes, box: Box, *, antialias: bool) -> np.ndarray:
    pixels = decode_array(data, lambda height, width: box)
    if antialias:
        return resize(pixels, SIZE, PreprocessingConfig(antialias=True))
    return resize_crop(pixels, SIZE)


def ways(antialias: bool) -> dict[str, Way]:
    """Ours first."""
    found: dict[str, Way] = {"ours": partial(by_us, antialias=antialias)}
    if antialias:
        found["simplejpeg + Pillow"] = by_simplejpeg_and_pillow
    else:
        found |= {
            "simplejpeg + OpenCV, float32": by_opencv_in_floats,
            "simplejpeg + OpenCV, INTER_LINEAR_EXACT": partial(
                by_opencv, interpolation=cv2.INTER_LINEAR_EXACT
            ),
            "simplejpeg + OpenCV, INTER_LINEAR": partial(by_opencv, interpolation=cv2.INTER_LINEAR),
        }
    found["Pillow"] = partial(by_pillow, antialias=antialias)
    if importlib.util.find_spec("tensorflow") is not None:
        found["TensorFlow"] = partial(by_tensorflow, antialias=antialias)
    return found


def exact(pixels: np.ndarray, *, antialias: bool) -> np.ndarray:
    """Bilinear resizing in float64, with or without the triangle of antialias."""
    for axis, new in enumerate(SIZE):
        old = pixels.shape[axis]
        scale = max(old / new, 1.0) if antialias else 1.0
        centres = (np.arange(new) + 0.5) * old / new
        if not antialias:
            centres = centres.clip(0.5, old - 0.5)
        distances = np.abs(np.arange(old) + 0.5 - centres[:, None]) / scale
        weights = np.maximum(1 - distances, 0)
        weights /= weights.sum(1, keepdims=True)
        pixels = np.moveaxis(np.tensordot(weights, pixels, (1, axis)), 0, axis)
    return pixels


def compare(files: list[bytes], boxes: list[Box], rounds: int, *, antialias: bool) -> None:
    """Prints the table of all ways."""
    tasks, each = list(zip(files, boxes, strict=True)), list(ways(antialias).items())
    taken = np.zeros((rounds, len(each)))
    for turn in range(-1, rounds):  # The first is not counted.
        for number, start in enumerate(range(0, len(tasks), _AT_ONCE)):
            order = np.roll(np.arange(len(each)), number)
            for i in order if turn % 2 else order[::-1]:
                began = time.process_time()
                for file, box in tasks[start : start + _AT_ONCE]:
                    each[i][1](file, box)
                taken[turn, i] += time.process_time() - began
        if turn < 0:
            taken[:] = 0
    taken *= 1e3 / len(tasks)
    print(f"\n{'With' if antialias else 'Without'} antialias:\n")
    print("| | ms an image | images a CPU second | times ours | largest error | mean error |")
    print("| --- | --- | --- | --- | --- | --- |")
    for i, (name, way) in enumerate(each):
        errors = [
            way(file, box)
            - exact(crop(np.asarray(Image.open(io.BytesIO(file))), box), antialias=antialias)
            for file, box in tasks[:32]
        ]
        quartile = float(np.percentile(taken[:, i], 25))
        print(
            f"| {name} | {quartile:.3f} ({min(taken[:, i]):.3f} to {max(taken[:, i]):.3f}) | "
            f"{1e3 / quartile:,.0f} | {_spread(taken[:, i] / taken[:, 0], '.2f')} | "
            f"{max(np.abs(e).max() for e in errors):.2f} | "
            f"{np.mean([e.mean() for e in errors]):+.4f} |",
            flush=True,
        )


def pipeline(
    files: list[bytes], workers: Sequence[int], rounds: int, batch_size: int, batches: int
) -> None:
    """Prints what the pipeline takes beside its transform, and how it grows with workers."""
    print(
        "\n| workers | pipeline, ms of CPU an image | transform alone | ratio | images a second |"
    )
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as directory:
        for number, file in enumerate(files):
            path = Path(directory) / ("a", "b")[number % 2] / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(file)
        for count in workers:
            setup = _setup(directory, batch_size, count)
            found = []
            for turn in range(rounds):
                parts = [_whole, _alone] if turn % 2 else [_alone, _whole]
                found.append({part: part(setup, batches) for part in parts})
            whole = [each[_whole][0] for each in found]
            alone = [each[_alone][0] for each in found]
            ratios = [a / b for a, b in zip(whole, alone, strict=True)]
            speeds = [each[_whole][1] for each in found]
            columns = (_spread(whole, ".2f"), _spread(alone, ".2f"), _spread(ratios, ".2f"))
            print(f"| {count} | {' | '.join(columns)} | {_spread(speeds, '.0f')} |", flush=True)


def _setup(directory: str, batch_size: int, workers: int) -> Setup:
    config = {
        "model": {"name": "ViT-B/16"},
        "data": {
            **{"dataset": directory, "batch_size": batch_size, "workers": workers},
            "randaugment": {"layers": 2, "magnitude": 15},
        },
        **{"optimizer": {}, "total_steps": 10_000, "mesh": {"data": 1}},
    }
    return prepare(build(TrainConfig, config))


def _whole(setup: Setup, batches: int) -> tuple[float, float]:
    """Milliseconds of CPU time an image, and images a second."""
    images = batches * setup.config.data.batch_size
    with make_loader(setup, 0) as loader:
        for _ in range(_FIRST_BATCHES):
            next(loader)
        before, began = _cpu_seconds(), time.perf_counter()
        for _ in range(batches):
            next(loader)
        seconds, cpu = time.perf_counter() - began, _cpu_seconds() - before
    return cpu * 1e3 / images, images / seconds


def _alone(setup: Setup, batches: int) -> tuple[float, float]:
    """The same, for the transform of the same images."""
    chunks, size = make_chunks(setup), setup.config.data.batch_size
    records = [chunks.source[i].image for i in range(len(chunks.source))]
    before, began = time.process_time(), time.perf_counter()
    for step in range(_FIRST_BATCHES, _FIRST_BATCHES + batches):
        for row in range(size):
            rng = np.random.default_rng((chunks.seed, step, row))
            chunks.transform(records[(step * size + row) % len(records)], rng)
    seconds, cpu = time.perf_counter() - began, time.process_time() - before
    return cpu * 1e3 / (batches * size), batches * size / seconds


def _cpu_seconds() -> float:
    """User and system time, of this process and those that it has started."""
    process = psutil.Process()
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _spread(values: Sequence[float] | np.ndarray, form: str) -> str:
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main(
    data: str | None, rounds: int, images: int, workers: Sequence[int], batch_size: int
) -> None:
    libraries = f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}"
    print(f"simplejpeg {simplejpeg.__version__}, {libraries}, {versions()}, {platform.machine()}")
    cv2.setNumThreads(1)
    files, rng = pictures(data, images), np.random.default_rng(1)
    boxes = [sample_crop(375, 500, AREA, rng) for _ in files]
    for antialias in (False, True):
        compare(files, boxes, rounds, antialias=antialias)
    if workers:
        pipeline(files, workers, max(rounds // 3, 1), batch_size, max(images // batch_size, 4))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="a folder of pictures")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--batch_size", type=int, default=32)
    main(**vars(parser.parse_args()))
