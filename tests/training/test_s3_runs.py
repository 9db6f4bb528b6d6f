"""Runs of two hosts that share nothing but a bucket of S3, and what commands do with such a run.

One is killed and resumed, and must equal, bit for bit, one that nothing disturbed.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.real_processes import finish
from tests.s3_server import s3_bucket
from tests.training.test_bucket_runs import ROOT, kill, start, tar_of, wait_until
from vit_jax.__main__ import main
from vit_jax.runs.directory import has_checkpoint
from vit_jax.storage import objects

pytestmark = pytest.mark.slow

OPTIONS = [
    "--config.data.dataset=s3://bkt/digits/{train,test}-{0..1}.tar",
    *("--config.total_steps=42", "--config.checkpoint.every_steps=14"),
]
WHOLE = "s3://bkt/runs/whole"


@pytest.fixture(scope="module", autouse=True)
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A bucket with 96 images of two classes in tars."""
    bucket = s3_bucket()
    root = next(bucket)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("VIT_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        rng = np.random.default_rng(0)
        for split, images in (("train", 32), ("test", 16)):
            for shard in range(2):
                data = tar_of(rng, images, shard * images)
                objects.write_bytes(f"{root}/digits/{split}-{shard}.tar", data)
        yield
    next(bucket, None)


def results(workdir: str) -> tuple[list[dict[str, Any]], bytes]:
    """The metrics without times, and the final weights."""
    names = [name for name in objects.list_names(workdir) if name.startswith("metrics.jsonl")]
    lines = b"".join(objects.read_bytes(f"{workdir}/{name}") for name in names).splitlines()
    metrics = [
        {k: v for k, v in json.loads(line).items() if not k.startswith(("time/", "memory/"))}
        for line in lines
    ]
    return metrics, objects.read_bytes(f"{workdir}/weights.npz")


@pytest.fixture(scope="module")
def whole(served: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What two hosts leave that nothing disturbed."""
    finish(start(tmp_path_factory.mktemp("whole"), WHOLE, options=OPTIONS))
    found = results(WHOLE)
    assert found[0][-1]["step"] == 42
    return found


def test_killed_refused_and_resumed(whole: Any, tmp_path: Path) -> None:
    """One process is killed at a step; a third start while both run is refused."""
    workdir = "s3://bkt/runs/killed"
    hosts = start(tmp_path, workdir, options=OPTIONS)
    wait_until(lambda: has_checkpoint(workdir), hosts)
    hosts[1].send_signal(signal.SIGSTOP)  # Host 0 waits for it, and renews its claim.
    third = start(tmp_path, workdir, 1, name="third", options=OPTIONS)
    output, _ = third[0].communicate(timeout=60)
    assert third[0].returncode == 2
    assert "is in use by another run, on host" in output.splitlines()[-1]
    hosts[1].send_signal(signal.SIGCONT)
    kill(hosts, [0])
    outputs = finish(start(tmp_path, workdir, options=OPTIONS))
    assert "this one takes over" in outputs[0] and "resuming after step" in outputs[0]
    assert results(workdir) == whole


def test_commands_read_a_run_in_s3_and_write_there(
    whole: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", f"--weights={WHOLE}", "--output=s3://bkt/out/scores.json"]) == 0
    (row,) = json.loads(objects.read_bytes("s3://bkt/out/scores.json"))
    facts = json.loads(objects.read_bytes(f"{WHOLE}/weights.json"))
    assert row["scores"]["top1"] == pytest.approx(facts["scores"]["test/top1"])
    image = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(image)
    objects.write_bytes("s3://bkt/photos/image.png", image.read_bytes())
    predict = ["predict", f"--weights={WHOLE}", "--images=s3://bkt/photos"]
    assert main([*predict, "--embed=s3://bkt/out/features.npz"]) == 0
    target = "s3://bkt/hub/model.safetensors"
    assert main(["convert", f"--source={WHOLE}", f"--target={target}", "--layout=timm"]) == 0
    assert main(["report", WHOLE]) == 0
    capsys.readouterr()
    assert {"report.html", "weights.npz"} <= set(objects.list_names(WHOLE))
    assert {"model.safetensors", "README.md"} <= set(objects.list_names("s3://bkt/hub"))
    assert objects.exists("s3://bkt/out/features.npz")
    (tmp_path / "next").mkdir()
    options = [*OPTIONS, "--config.total_steps=3", f"--config.init_from={WHOLE}"]
    finish(start(tmp_path, "s3://bkt/runs/next", 1, options=options))
    assert objects.exists("s3://bkt/runs/next/weights.npz")
