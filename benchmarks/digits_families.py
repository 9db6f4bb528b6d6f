"""Trains each family of models on the digits, and prints test accuracy and time.

    python -m benchmarks.digits_families

Times are of whole commands, start and compilation included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main(models: list[str]) -> None:
    for model in models:
        with tempfile.TemporaryDirectory() as directory:
            workdir = Path(directory) / model
            began = time.perf_counter()
            command = [
                "train",
                "--report=off",
                f"--config=configs/digits.py:{model}",
                f"--workdir={workdir}",
            ]
            subprocess.run(
                [sys.executable, "-m", "vit_jax", *command], check=True, stderr=subprocess.DEVNULL
            )
            seconds = time.perf_counter() - began
            lines = (workdir / "metrics.jsonl").read_text().splitlines()
            top1 = [json.loads(line)["test/top1"] for line in lines if "test/top1" in line][-1]
            name = json.loads((workdir / "config.json").read_text())["model"]["name"]
        print(f"{name}: {top1:.2%} in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["hybrid", "resnet", "bit", "mixer"])
    main(**vars(parser.parse_args()))
