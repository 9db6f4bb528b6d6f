"""Inference and training of ours, of plain Flax and of timm, interleaved in one run.

    python -m benchmarks.peers
    python -m benchmarks.peers --small --rounds=2
    python -m benchmarks.peers --output=peers.md

Needs jax, flax, optax, torch and timm. All contenders begin from the same parameters and batch, and
what they compute is compared. Each has a process of its own and sleeps between its turns, which
come in both orders.

On a CPU it measures what a first hour spends, in CPU time of all threads: seconds at the lower
quartile, how far the upper one lies above it, and the ratio to plain Flax's. On a GPU it measures
training, inference and attention alone in bfloat16, by the clock: speed at the lower quartile of
the seconds, the spread, and the speed's ratio to plain Flax's.
"""

import argparse
import os
import platform
import shlex
import sys
from pathlib import Path

from benchmarks.peers import card, first_hour
from benchmarks.peers.case import CONTENDERS, GPU_ONLY
from benchmarks.peers.worker import Worker


def main(
    contenders: list[str],
    table: str | None,
    models: list[str],
    rounds: int,
    steps: int,
    small: bool,
    output: str | None,
) -> None:
    # Two libraries share a GPU's memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    lines: list[str] = []

    def tell(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        if output is not None:
            Path(output).write_text("\n".join(lines) + "\n")

    tell("# Ours beside plain Flax and timm\n")
    tell(f"```bash\npython -m benchmarks.peers {shlex.join(sys.argv[1:])}\n```\n")
    described = []
    for name in contenders:
        with Worker(name) as worker:
            described.append(worker.describe())
    platforms, kinds, versions = (
        ", ".join(dict.fromkeys(each)) for each in zip(*described, strict=True)
    )
    if "," in platforms:
        sys.exit(f"the libraries see different devices: {platforms}; install those for one")
    cores = len(os.sched_getaffinity(0))
    tell(f"{kinds}; {cores} cores of {_processor()}; {versions}; {rounds} rounds.\n")
    names = [name for name in contenders if platforms == "gpu" or name != GPU_ONLY]
    if table == "card" or (table is None and platforms == "gpu"):
        card.table(names, models, rounds, steps, small, tell)
    else:
        first_hour.table(names, rounds, small, tell)


def _processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--table", choices=["first_hour", "card"], help="by default that of the device at hand"
    )
    parser.add_argument("--models", nargs="+", default=list(card.MODELS), help="on a GPU")
    parser.add_argument("--steps", type=int, default=10, help="in a turn, on a GPU")
    parser.add_argument("--small", action="store_true", help="tiny models, to try it")
    parser.add_argument("--output", help="file for the page, as Markdown")
    main(**vars(parser.parse_args()))
