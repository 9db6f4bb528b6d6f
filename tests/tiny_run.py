"""A run of a tiny ViT on the digits, started as a real process, and what it leaves behind."""

import json
import subprocess
from pathlib import Path

from tests.real_processes import VIT_JAX, start_process
from tests.small_models import TINY_FLAGS

# Dropout, micro-batches, averaging, checkpoints and evaluations: all that a resume must continue.
FLAGS = [
    *("train", "--config=configs/quickstart.py"),
    *TINY_FLAGS,
    *("--config.model.dropout=0.1", "--config.data.batch_size=32"),
    *("--config.optimizer.micro_batches=2", "--config.optimizer.warmup_steps=2"),
    *("--config.optimizer.average=0.9", "--config.log_every=7"),
    *("--config.checkpoint.every_steps=10", "--config.evals.test.every_steps=25"),
]
COMMAND = [*VIT_JAX, *FLAGS]


def start(workdir: Path, data_dir: Path, *more: str) -> subprocess.Popen[str]:
    """Starts the run in `workdir`, or resumes it."""
    return start_process(
        [*FLAGS, f"--config.data.data_dir={data_dir}", f"--workdir={workdir}", *more]
    )


def results(workdir: Path) -> tuple[list[dict[str, float]], bytes]:
    """What must not depend on kills: the metrics without times, and the final weights."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    metrics = [
        {k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))} for line in lines
    ]
    return metrics, (workdir / "weights.npz").read_bytes()
