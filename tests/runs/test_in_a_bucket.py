"""A run's directory in a bucket: what its files promise, as on a disk."""

import contextlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.bucket_api import Bucket
from vit_jax.errors import StorageError, UserError
from vit_jax.runs import appending
from vit_jax.runs.config_file import is_run, read_config, read_extension
from vit_jax.runs.cost import CostFile, Hardware, read_cost
from vit_jax.runs.data_list import read as read_list
from vit_jax.runs.data_list import write as write_list
from vit_jax.runs.directory import RunDirectory, has_checkpoint
from vit_jax.runs.metrics import MetricsWriter, read_metrics
from vit_jax.storage import objects

RUN = "gs://bkt/runs/first"
CONFIG = {"optimizer": {"lr": 0.01}, "total_steps": 10}


def test_a_directory_is_claimed_and_resumed(bucket: Bucket) -> None:
    with RunDirectory(RUN, CONFIG, writer=True) as first:
        assert is_run(RUN) and not has_checkpoint(RUN)
        RunDirectory(RUN, CONFIG, writer=False)  # Another process of the same run.
    with RunDirectory(RUN, CONFIG, writer=True) as second:
        assert second.identity == first.identity
    assert read_config(RUN) == CONFIG
    with pytest.raises(UserError, match=r"optimizer.lr: 0.01 -> 0.03"):
        RunDirectory(RUN, {**CONFIG, "optimizer": {"lr": 0.03}}, writer=True)
    with RunDirectory(RUN, CONFIG, writer=True):
        pass  # The refusal has released it.


def test_files_of_another_program_are_left_alone(bucket: Bucket) -> None:
    objects.write_bytes(f"{RUN}/weights.npz", b"theirs")
    with pytest.raises(UserError, match=r"holds weights.npz but no config.json"):
        RunDirectory(RUN, CONFIG, writer=True)
    assert objects.list_files(RUN) == {"weights.npz": 6}


@pytest.mark.parametrize("access", ["read", "none"])
def test_a_bucket_that_lets_nobody_in_is_one_line(bucket: Bucket, access: str) -> None:
    bucket.faults.access = access
    with pytest.raises(StorageError, match=r"no access .*add-iam-policy-binding gs://bkt"):
        RunDirectory(RUN, CONFIG, writer=True)
    assert bucket.objects.buckets["bkt"] == {}


def test_an_extended_run_keeps_the_weights_that_it_had(bucket: Bucket) -> None:
    with RunDirectory(RUN, CONFIG, writer=True) as directory:
        for name in ("weights.npz", "weights.json"):
            objects.write_bytes(f"{RUN}/{name}", name.encode())
        directory.note_weights()
        assert directory.weights_are_whole()
        directory.extend(10, 20)
        assert read_extension(RUN) == 20
    names = objects.list_names(RUN)
    assert {"weights-10.npz", "weights-10.json"} <= set(names)
    assert not {"weights.npz", "weights.json"} & set(names)


def test_a_list_of_data_and_a_cost_are_read_back(bucket: Bucket) -> None:
    lists = {"train": {"a.tar": "12 bytes"}}
    assert read_list(f"{RUN}/data.gz") is None
    write_list(f"{RUN}/data.gz", lists)
    assert read_list(f"{RUN}/data.gz") == lists
    objects.write_bytes(f"{RUN}/data.gz", b"torn")
    with pytest.raises(UserError, match=r"data\.gz cannot be read"):
        read_list(f"{RUN}/data.gz")
    hardware = Hardware("cpu", devices=2, cores=2)
    cost = CostFile(
        RUN, hardware, step=0, passed=0, batch_size=8, flops_per_image=None, began=-3600.0
    )
    cost.note(5, 0)
    assert read_cost(RUN).images == 40


def test_metrics_are_cut_back_on_resume(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "_PIECE", 200)
    writer = MetricsWriter(RUN, 0)
    for step in range(1, 101):
        writer.write(step, {"train/loss": step / 2})
        if step % 3 == 0:
            writer.flush()
    writer.write(100, {"val/top1": math.inf})
    writer.close()
    assert len(appending.pieces(writer._path)) > 10
    assert [line["train/loss"] for line in read_metrics(RUN)[:100]] == [
        s / 2 for s in range(1, 101)
    ]
    assert math.isnan(read_metrics(RUN)[-1]["val/top1"])

    writer = MetricsWriter(RUN, 50)
    assert [line["step"] for line in read_metrics(RUN)] == list(range(1, 51))
    assert writer.write(50, {"train/loss": 25.0, "val/top1": 0.5}) == {"val/top1": 0.5}
    writer.write(51, {"train/loss": 25.5})
    writer.close()
    lines = read_metrics(RUN)
    assert [line["step"] for line in lines] == [*range(1, 51), 50, 51]

    writer = MetricsWriter(RUN, 0)
    writer.close()
    assert read_metrics(RUN) == []
    assert objects.list_names(RUN) in (["metrics.jsonl"], [])


def test_lines_that_are_torn_or_damaged_are_left_out(bucket: Bucket) -> None:
    objects.write_bytes(f"{RUN}/metrics.jsonl", b'{"step": 1, "a": 2}\n\xff\n{"step": 2, "a')
    assert read_metrics(RUN) == [{"step": 1, "a": 2}]
    writer = MetricsWriter(RUN, 2)
    writer.write(2, {"a": 3})
    writer.close()
    assert (
        objects.read_bytes(f"{RUN}/metrics.jsonl") == b'{"step": 1, "a": 2}\n{"step": 2, "a": 3}\n'
    )


def test_metrics_that_could_not_be_written_are_kept(bucket: Bucket) -> None:
    writer = MetricsWriter(RUN, 0)
    writer.write(1, {"a": 1})
    bucket.faults.access = "read"
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be written \(gs://bkt/.*no access"):
        writer.flush()
    writer.write(2, {"a": 2})
    bucket.faults.access = "write"
    writer.close()
    assert [line["step"] for line in read_metrics(RUN)] == [1, 2]


def test_what_an_upload_sends_again_is_bounded(bucket: Bucket, tmp_path: Path) -> None:
    writer = MetricsWriter(RUN, 0)
    for step in range(1, 40_001):
        writer.write(step, {"train/loss": 0.125, "train/accuracy": 0.5})
        if step % 1000 == 0:
            writer.flush()
    writer.close()
    lengths = objects.list_files(RUN)
    lines = 40_000 * len('{"step": 12345, "train/loss": 0.125, "train/accuracy": 0.5}\n')
    assert max(lengths.values()) < 2**18 + lines / 40 + 2**10
    assert sum(lengths.values()) == pytest.approx(lines, rel=0.01)
    assert len(read_metrics(RUN)) == 40_000


def test_names_of_a_step_in_an_earlier_piece_are_not_written_twice(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "_PIECE", 10)
    writer = MetricsWriter(RUN, 0)
    for step, name in ((1, "a"), (2, "a"), (2, "b"), (2, "c")):
        writer.write(step, {name: 0.5})
        writer.flush()
    writer.close()
    writer = MetricsWriter(RUN, 2)
    assert writer.write(2, dict.fromkeys("abcd", 0.5)) == {"d": 0.5}
    writer.close()
    assert [(line["step"], *line) for line in read_metrics(RUN)] == [
        (step, "step", name) for step, name in ((1, "a"), (2, "a"), (2, "b"), (2, "c"), (2, "d"))
    ]


@pytest.mark.parametrize("calls", range(6))
def test_pieces_on_a_disk_are_joined_once_whenever_a_start_is_killed(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("", ".0001", ".0002")):
        (tmp_path / f"metrics.jsonl{name}").write_text(f'{{"step": {number + 1}, "a": 0.5}}\n')
    left = itertools.count(calls, -1)

    def until_killed(call: Any) -> Any:
        def wrapped(*given: Any, **options: Any) -> Any:
            if next(left) == 0:
                raise KeyboardInterrupt
            return call(*given, **options)

        return wrapped

    with monkeypatch.context() as patched:
        patched.setattr(objects, "write_bytes", until_killed(objects.write_bytes))
        patched.setattr(objects, "delete", until_killed(objects.delete))
        with contextlib.suppress(KeyboardInterrupt):
            MetricsWriter(tmp_path, 2).close()
    MetricsWriter(tmp_path, 2).close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    assert list(tmp_path.iterdir()) == [tmp_path / "metrics.jsonl"]


def test_a_run_that_is_copied_to_a_disk_goes_on_there(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "_PIECE", 50)
    with RunDirectory(RUN, CONFIG, writer=True):
        writer = MetricsWriter(RUN, 0)
        for step in range(1, 9):
            writer.write(step, {"a": step})
            writer.flush()
        writer.close()
    for name in objects.list_files(RUN):
        objects.write_bytes(tmp_path / name, objects.read_bytes(f"{RUN}/{name}"))
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 9))
    with RunDirectory(tmp_path, CONFIG, writer=True):
        MetricsWriter(tmp_path, 6).close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 7))
    assert list(tmp_path.glob("metrics*")) == [tmp_path / "metrics.jsonl"]
