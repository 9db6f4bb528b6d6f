"""Saves that fail for want of room."""

import shutil
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.full_disk import no_room
from vit_jax.errors import NotSavedError, UserError
from vit_jax.runs.appending import Appended
from vit_jax.runs.checkpoints import CheckpointConfig, Checkpoints
from vit_jax.runs.metrics import MetricsWriter, read_metrics

STATE = {"w": jax.random.normal(jax.random.key(0), (512, 512))}
LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), STATE)


def restored_step(directory: Path) -> int:
    with Checkpoints(directory, CheckpointConfig()) as checkpoints:
        restored = checkpoints.restore(LIKE)
    assert restored is not None
    np.testing.assert_array_equal(restored[1]["w"], STATE["w"])
    return restored[0]


def test_a_full_disk_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(1, STATE)
        checkpoints.wait()
        message = r"step 2 could not be saved.*last good checkpoint: step 1"
        with no_room(), pytest.raises(UserError, match=message):
            checkpoints.save(2, STATE)
            checkpoints.wait()
    assert restored_step(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_save_without_room_fails_before_it_starts_and_the_next_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(1, STATE)
        checkpoints.wait()
        usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        # 512 x 512 floats are one MiB, and a quarter of one is for the rest.
        with pytest.raises(NotSavedError, match=r"1.0 MiB are free, and it needs 1.2 \(last good"):
            checkpoints.save(2, STATE)
        monkeypatch.undo()
        checkpoints.save(3, STATE)
        checkpoints.wait()
        assert restored_step(tmp_path) == 3


def test_a_failed_background_save_is_noticed_without_another_save(tmp_path: Path) -> None:
    told = pytest.raises(NotSavedError, match="step 1 could not be saved")
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints, no_room(), told:
        checkpoints.save(1, STATE)
        for _ in range(1000):
            checkpoints.check()
            time.sleep(0.01)


def test_metrics_wait_for_room(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    with no_room():
        for step in range(1, 2000):
            writer.write(step, {"train/loss": 0.1 + step, "train/lr": 0.1})
        with pytest.raises(NotSavedError, match=r"metrics\.jsonl cannot be written"):
            writer.flush()
        assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"}\n")
    writer.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 2000))


def test_a_full_disk_in_a_rewind_is_a_line(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    with no_room():
        for step in range(1, 2000):
            writer.write(step, {"train/loss": 0.1 + step, "train/lr": 0.1})
        with pytest.raises(UserError, match=r"cannot write metrics to .*; free space"):
            writer.cut(1999)
        writer.close()  # As the run does when it ends with that line.


def test_pieces_of_a_file_wait_for_room_and_none_is_torn(tmp_path: Path) -> None:
    pieces = [bytes([number]) * 1000 for number in range(200)]
    file = Appended(tmp_path / "file")
    with no_room():
        for piece in pieces[:100]:
            file.add(piece)
        with pytest.raises(OSError, match=r"No space|too large"):
            file.flush()
        assert (tmp_path / "file").read_bytes() == b"".join(pieces[:65])
    for piece in pieces[100:]:
        file.add(piece)
    file.close()
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)
