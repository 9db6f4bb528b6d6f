"""The quickstart's config for runs that take a second, and the metrics that they write."""

import json
from pathlib import Path

from tests.small_models import TINY_FLAGS

QUICKLY = [
    *TINY_FLAGS,
    "--config.data.batch_size=16",
    "--config.data.workers=0",
    "--config.log_every=2",
    "--config.optimizer.warmup_steps=2",
]


def quickstart(data_dir: Path, *, steps: int, argument: str = "") -> list[str]:
    return [
        f"--config=configs/quickstart.py{argument}",
        *QUICKLY,
        f"--config.data.data_dir={data_dir}",
        f"--config.total_steps={steps}",
        "--config.evals.test.every_steps=4",
        "--config.checkpoint.every_steps=4",
    ]


def metrics(workdir: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))} for line in lines
    ]
