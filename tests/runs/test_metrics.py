import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from vit_jax.runs.metrics import MetricsWriter, read_metrics


def _lines(directory: Path) -> Any:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def _write(directory: Any, start: Any, steps: Any) -> None:
    writer = MetricsWriter(directory, start)
    for step in steps:
        writer.write(step, {"train/loss": 1 / step})
    writer.close()


def _resume(directory: Path, step: int) -> Any:
    MetricsWriter(directory, step).close()
    return [line["step"] for line in _lines(directory)]


def test_lines_are_objects_with_their_step(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, {"train/loss": 2.5, "time/images_per_second": 100.0})
    writer.write(1, {"val/top1": 0.75})
    writer.close()
    assert _lines(tmp_path) == [
        {"step": 1, "train/loss": 2.5, "time/images_per_second": 100.0},
        {"step": 1, "val/top1": 0.75},
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(tmp_path: Path, value: Any) -> None:
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, {"val/loss": value, "val/top1": 0.5})
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 1, "val/loss": null, "val/top1": 0.5}\n'
    )


def test_a_scalar_is_read_back_exactly(tmp_path: Path) -> None:
    values = [1 / 3, 5e-324, 0.1 + 0.2, math.nan]
    writer = MetricsWriter(tmp_path, 0)
    for step, value in enumerate(values):
        writer.write(step, {"train/loss": 1.0})
        writer.write(step, {"val/top1": value})
    writer.close()
    found = [(x["step"], x["val/top1"]) for x in read_metrics(tmp_path) if "val/top1" in x]
    assert found[:3] == list(enumerate(values[:3]))
    assert found[3][0] == 3 and math.isnan(found[3][1])


def test_flushed_lines_outlive_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, {"train/loss": 1.0})
    writer.flush()
    assert _lines(tmp_path) == [{"step": 1, "train/loss": 1.0}]
    assert (tmp_path / "metrics.jsonl").stat().st_ino in synced
    writer.close()


@pytest.mark.parametrize("step", [0, 3, 4, 5, 9])
def test_a_restart_cuts_back_to_its_step(tmp_path: Path, step: Any) -> None:
    _write(tmp_path, 0, range(1, 6))
    before = _lines(tmp_path)
    assert _resume(tmp_path, step) == [s for s in range(1, 6) if s <= step]
    assert _lines(tmp_path) == before[:step]


def test_a_restart_goes_on_after_what_is_kept(tmp_path: Path) -> None:
    _write(tmp_path, 0, range(1, 6))
    _write(tmp_path, 3, (4, 5, 6))
    assert _lines(tmp_path) == [{"step": s, "train/loss": 1 / s} for s in range(1, 7)]


@pytest.mark.parametrize("length", range(1, 29, 3))
def test_a_torn_last_line_is_cut_off(tmp_path: Path, length: Any) -> None:
    _write(tmp_path, 0, (1, 2))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "train/loss": 1}\n'[:length])
    assert _resume(tmp_path, 3) == [1, 2]


@pytest.mark.parametrize(
    "damaged",
    [
        b"\0" * 30,
        b'{"step": 2, "train/lo',
        b'{"step": 2, "train/loss": \xff}',
        b'{"train/loss": 0.5}',
        b'{"step": null}',
        b'{"step": "2"}',
        b"[2]",
        b"2",
        b"",
    ],
)
def test_a_damaged_line_takes_no_other_with_it(tmp_path: Path, damaged: Any) -> None:
    _write(tmp_path, 0, range(1, 6))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1] = damaged
    path.write_bytes(b"\n".join(lines))
    assert _resume(tmp_path, 4) == [1, 3, 4]


def test_what_the_file_holds_of_the_first_step_is_not_written_twice(tmp_path: Path) -> None:
    _write(tmp_path, 0, (1, 2))
    writer = MetricsWriter(tmp_path, 2)
    assert writer.write(2, {"train/loss": 9.0, "val/top1": 0.5}) == {"val/top1": 0.5}
    assert writer.write(2, {"train/loss": 9.0}) == {}
    assert writer.write(3, {"train/loss": 9.0}) == {"train/loss": 9.0}
    writer.close()
    assert _lines(tmp_path)[2:] == [{"step": 2, "val/top1": 0.5}, {"step": 3, "train/loss": 9.0}]
