"""Kills a run with SIGKILL at random moments until it ends, and compares it with one left alone.

    python -m benchmarks.kills --kills=100

Starts runs of a tiny ViT on the digits, kills them after a random time, and starts each again with
the same command until it ends. This repeats until --kills kills are done. `metrics.jsonl` (without
`time/`) and `weights.npz` of every killed run must equal those of a run that was not killed, bit
for bit. Prints one line for each run; exits with 1 if any differs.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [
    *(sys.executable, "-m", "vit_jax", "train", "--config=configs/quickstart.py"),
    "--report=off",
    *("--config.model.depth=1", "--config.model.width=16", "--config.model.mlp_dim=16"),
    *("--config.model.num_heads=2", "--config.model.dropout=0.1", "--config.data.batch_size=32"),
    *("--config.optimizer.micro_batches=2", "--config.optimizer.warmup_steps=2"),
    *(
        "--config.optimizer.average=0.9",
        "--config.log_every=7",
        "--config.checkpoint.every_steps=10",
    ),
    "--config.evals.test.every_steps=25",
]


def start(workdir: Path, data_dir: Path, *more: str) -> subprocess.Popen[str]:
    """Starts the run in `workdir`, or resumes it."""
    return subprocess.Popen(
        [*COMMAND, f"--config.data.data_dir={data_dir}", f"--workdir={workdir}", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def results(workdir: Path) -> tuple[list[dict[str, float]], bytes]:
    """What must not depend on kills: the metrics without times, and the final weights."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    metrics = [
        {k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))} for line in lines
    ]
    return metrics, (workdir / "weights.npz").read_bytes()


def main(kills: int, steps: int, seed: int) -> int:
    rng = random.Random(seed)
    total_steps = f"--config.total_steps={steps}"
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        began = time.perf_counter()
        whole = start(root / "whole", root / "data", total_steps)
        if whole.wait() != 0:
            raise RuntimeError(whole.communicate()[0])
        seconds = time.perf_counter() - began
        print(f"not killed: {steps} steps in {seconds:.1f} s", flush=True)
        expected, done, different, runs = results(root / "whole"), 0, 0, 0
        while done < kills:
            runs += 1
            workdir, killed = root / f"run{runs}", 0
            while True:
                process = start(workdir, root / "data", total_steps)
                try:
                    # The last starts of a run are left alone, so that it ends.
                    wait = None if done == kills else rng.uniform(0.2, 1.1) * seconds
                    output, _ = process.communicate(timeout=wait)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    done, killed = done + 1, killed + 1
                    continue
                if process.returncode != 0:
                    raise RuntimeError(output)
                break
            same = results(workdir) == expected
            different += not same
            verdict = "the same" if same else "DIFFERENT"
            print(f"run {runs}: killed {killed} times, {verdict}", flush=True)
    print(f"{done} kills in {runs} runs, {different} of which differ")
    return 1 if different else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(main(**vars(parser.parse_args())))
