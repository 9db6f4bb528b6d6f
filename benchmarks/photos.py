"""Fine-tuning on photographs within minutes, beside PyTorch and a linear probe.

    python -m benchmarks.photos flowers FOLDER WEIGHTS --minutes=10 --seeds 0 1 2
    python -m benchmarks.photos draws cifar10_jpeg.tar.xz WEIGHTS --minutes=15 --seeds 0 1 2 3 4
    python -m benchmarks.photos unequal FOLDER WEIGHTS --minutes=10 --seeds 0

FOLDER has train and test with the classes in each. `draws` takes 100 training and 100 test images
of each class out of an archive, anew for each seed. `unequal` keeps a tenth of the training images
of every other class, and trains with and without balanced sampling.

Each row is a run of the `train` command with configs/photos.py, of benchmarks/photos_timm.py
(timm's model from the same file, a plain PyTorch loop, the same time), or scikit-learn's logistic
regression on the same features. Processor time is printed beside the clock's: on a machine that
others use, it says how much work a run could do. Results are added to OUTPUT/results.jsonl and
printed as a table.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import few_images

CONFIG = "configs/photos.py"


def ours(
    folder: Path, weights: str, minutes: float, seed: int, workdir: Path, *more: str
) -> dict[str, Any]:
    """The train command; its first and last accuracy, and when they were printed."""
    shutil.rmtree(workdir, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "vit_jax", "train", f"--config={CONFIG}:{folder},{weights}"),
        *(f"--workdir={workdir}", f"--max_minutes={minutes:g}", f"--config.seed={seed}", *more),
    ]
    found, lines = _timed(command, workdir.with_suffix(".log"))
    at = [seconds for seconds, line in lines if line.startswith("step 0: test ")]
    scores = [
        {key: line[f"test/{key}"] for key in ("top1", "loss")} | {"step": line["step"]}
        for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        if "test/top1" in line
    ]
    return found | {
        "first_seconds": at[0] if at else None,
        "probe": scores[0]["top1"],
        "top1": scores[-1]["top1"],
        "steps": scores[-1]["step"],
        "curve": [(line["step"], line["top1"]) for line in scores],
    }


def pytorch(folder: Path, weights: str, minutes: float, seed: int, log: Path) -> dict[str, Any]:
    """timm's model by a plain loop, in a process of its own."""
    command = [
        *(sys.executable, "-m", "benchmarks.photos_timm", str(folder), weights),
        *(f"--minutes={minutes:g}", f"--seed={seed}"),
    ]
    found, lines = _timed(command, log)
    return found | json.loads(lines[-1][1])


def logistic_regression(folder: Path, weights: str) -> dict[str, Any]:
    """scikit-learn's own estimator on the features that our model's head sees."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from vit_jax import load_model
    from vit_jax.data.sources.open import open_source
    from vit_jax.inference.features import features_of_source

    began = time.perf_counter()
    model = load_model(weights=weights)
    train = features_of_source(model, open_source(str(folder.absolute()), "train"))
    test = features_of_source(model, open_source(str(folder.absolute()), "test"))
    fit = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=5, cv=5, max_iter=1000))
    fit.fit(train.features, train.labels)
    right = fit.predict(test.features) == test.labels
    return {"top1": float(right.mean()), "seconds": time.perf_counter() - began}


def _timed(command: Sequence[str], log: Path) -> tuple[dict[str, Any], list[tuple[float, str]]]:
    """Runs a command; its times in seconds, and each line that it printed with its time."""
    log.parent.mkdir(parents=True, exist_ok=True)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.perf_counter() - began, line.rstrip()))
    log.write_text("".join(f"{seconds:7.1f}  {line}\n" for seconds, line in lines))
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: see {log}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - began, "processor_seconds": processor}, lines


def unequal_copy(folder: Path, target: Path) -> Path:
    """A folder in which every other class keeps a tenth of its training images."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    for number, of_class in enumerate(sorted((target / "train").iterdir())):
        images = sorted(of_class.iterdir())
        for image in images[max(1, len(images) // 10) :] if number % 2 else []:
            image.unlink()
    return target


def results(
    task: str,
    data: Path,
    weights: str,
    minutes: float,
    seeds: Sequence[int],
    ways: Sequence[str],
    output: Path,
) -> Iterator[dict[str, Any]]:
    """Runs one task, row by row."""
    for seed in seeds:
        where = output / f"{task}-{seed}"
        folder = data
        if task == "draws":
            folder = where / "images"
            if not folder.is_dir():
                few_images.main(str(data), str(folder), 100, 100, seed)
        if task == "unequal":
            folder = unequal_copy(data, where / "images")
            for sampling in ("balanced", "shuffled"):
                more = f"--config.data.sampling={sampling}"
                found = ours(folder, weights, minutes, seed, where / sampling, more)
                yield {"way": f"ours, sampling={sampling}", "seed": seed, **found}
            continue
        if "ours" in ways:
            found = ours(folder, weights, minutes, seed, where / "run")
            yield {"way": "ours", "seed": seed, **found}
        if "timm" in ways:
            found = pytorch(folder, weights, minutes, seed, where / "timm.log")
            yield {"way": "timm and PyTorch", "seed": seed, **found}
        if "features" in ways and (task == "draws" or seed == seeds[0]):
            found = logistic_regression(folder, weights)
            yield {"way": "scikit-learn on the features", "seed": seed, **found}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over seeds, with the range."""
    names = ["", "runs", "top-1, %", "range", "probe, %", "first accuracy, s", "s", "processor, s"]
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        top1 = [100 * row["top1"] for row in mine]
        cells = [way, str(len(mine)), f"{np.mean(top1):.1f}", f"{min(top1):.1f} to {max(top1):.1f}"]
        for key, factor, digits in (
            ("probe", 100, 1),
            *(("first_seconds", 1, 0), ("seconds", 1, 0), ("processor_seconds", 1, 0)),
        ):
            values = [factor * row[key] for row in mine if row.get(key) is not None]
            cells.append(f"{np.mean(values):.{digits}f}" if values else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs a task and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["flowers", "draws", "unequal"])
    parser.add_argument("data", type=Path, help="a folder; an archive for draws")
    parser.add_argument("weights", help="DeiT-Ti in timm's names")
    parser.add_argument("--minutes", type=float, default=10, help="of each run (10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=["ours", "timm", "features"],
        default=["ours", "timm", "features"],
        help="which rows of flowers and draws to make (all)",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/photos_benchmark"))
    given = parser.parse_args()
    rows = []
    for row in results(
        given.task,
        given.data,
        given.weights,
        given.minutes,
        given.seeds,
        given.ways,
        given.output,
    ):
        rows.append(row)
        with (given.output / "results.jsonl").open("a") as file:
            file.write(json.dumps({"task": given.task, "minutes": given.minutes, **row}) + "\n")
        print(json.dumps(row), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
