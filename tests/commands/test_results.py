"""The file of `predict` after a kill at any byte, and the refusals of what it cannot resume."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.commands.named_photos import MODEL, write
from tests.commands.test_predict import read_csv
from vit_jax.__main__ import main
from vit_jax.commands.results import Results
from vit_jax.errors import UserError
from vit_jax.inference.prediction import Prediction
from vit_jax.locks import try_lock

NAMES = ("=ant", 'bee, "wasp"', "cat\nthe second")
MADE_BY = {"weights": "w.npz", "model": "abc", "top_k": 2}
# Two are given twice; the names of two look alike to a spreadsheet.
FILES = ("a.png", "b,\n.png", "=c.png", "'=c.png", os.fsdecode(b"\xff.png"), "a.png", "d.png")


def answer(file: str) -> Prediction:
    if file == "d.png":
        return Prediction(file, (), (), "cannot read it: +1\n")
    return Prediction(file, (2, 0), (0.75, 0.125))


def add(path: Path, files: Sequence[str], made_by: dict[str, Any] = MADE_BY) -> int:
    """Adds what is missing; returns how many images that were."""
    with Results.open(path, made_by, NAMES) as results:
        missing = results.missing(files)
        for file in missing:
            results.write(answer(file))
        assert results.unreadable == ("d.png" in files)
    return len(missing)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_kill_at_any_byte_loses_one_image_at_most(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert add(path, FILES) == len(FILES)
    whole = path.read_bytes()
    assert add(path, FILES) == 0 and path.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    ends = [end for end in range(len(whole) + 1) if whole[end - 1 : end + 1].count(b"\n")]
    for cut in sorted({*ends, *range(0, len(whole), 23)}):
        path.write_bytes(whole[:cut])
        missing = add(path, FILES)
        assert path.read_bytes() == whole, cut
        # Images whose lines are whole stay; each has two lines in CSV, and the last one has one.
        there = whole[:cut].count(b"\n")
        kept = there if name == "a.jsonl" else max(there - 1, 0) // 2 + (there == len(lines))
        assert missing == len(FILES) - kept, cut


def test_images_that_were_added_meanwhile_follow(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    add(path, ["b.png", "c.png"])
    assert add(path, ["a.png", "b.png", "c.png"]) == 1
    images = [json.loads(line)["image"] for line in path.read_text().splitlines()]
    assert images == ["b.png", "c.png", "a.png"]


def refusal(path: Path, **changes: Any) -> str:
    before = path.read_bytes()
    with pytest.raises(UserError) as raised:
        add(path, FILES, MADE_BY | changes)
    assert path.read_bytes() == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_rows_of_another_model_or_options_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    add(path, FILES[:2])
    assert "begun with top_k=2, and now it is 3; choose another file" in refusal(path, top_k=3)
    message = refusal(path, model="abd", weights="v.npz")
    assert "begun with another model (--weights=w.npz)" in message
    assert add(path, FILES, MADE_BY | {"weights": "./w.npz"}) == len(FILES) - 2


def test_a_file_that_nothing_describes_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("of yesterday")
    assert "nothing states what wrote this file; choose another" in refusal(path)
    for damaged in ("", "{", "[]", "[" * 100_000):
        (tmp_path / "a.csv.json").write_text(damaged)
        assert "a.csv.json cannot be read" in refusal(path)
    os.remove(tmp_path / "a.csv.json")
    os.mkfifo(tmp_path / "a.csv.json")
    assert "a.csv.json cannot be read" in refusal(path)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.csv", "a.png,9,1,x,0.5,"),
        ("a.csv", "a.png,first,1,x,0.5,"),
        ("a.csv", "a.png;1;1;x;0.5;"),
        ("a.csv", 'a.png,1,1,"x'),
        ("a.jsonl", '{"image": 1}'),
        ("a.jsonl", "[]"),
        ("a.jsonl", "null\0"),
        ("a.jsonl", "\xff"),
    ],
)
def test_a_damaged_line_is_named(name: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / name
    add(path, FILES)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], line.encode("latin-1") + b"\n", *lines[3:]]))
    assert "line 4 is damaged" in refusal(path)


def test_two_jobs_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    add(path, FILES[:1])
    with open(path, "rb") as file:
        assert try_lock(file)
        assert "another process is writing it" in refusal(path)


def test_a_full_disk_keeps_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    write = os.write

    def fail(descriptor: int, data: bytes) -> int:
        if b"=c.png" in data:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:20])  # As much as there is room for.

    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left.*resumes"):
        patch.setattr(os, "write", fail)
        add(path, FILES)
    assert add(path, FILES) == len(FILES) - 2


@pytest.mark.slow
def test_a_killed_job_resumes(tmp_path: Path) -> None:
    """A real SIGKILL in the middle, then the same command: the file of a job that nobody ended."""
    count = 150
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (300, 300, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    for number in range(count):
        (tmp_path / f"in/{number:03}.png").symlink_to(tmp_path / f"{number % 4}.png")
    weights = write(tmp_path / "w.npz")
    flags = [f"--weights={weights}", "--images", str(tmp_path / "in"), "--batch_size=1"]
    output = tmp_path / "a.csv"
    command = [*flags, f"--output={output}"]
    child = subprocess.Popen(
        [sys.executable, "-m", "vit_jax", "predict", *command], stderr=subprocess.DEVNULL
    )
    with contextlib.suppress(FileNotFoundError):
        while child.poll() is None and (not output.exists() or output.stat().st_size < 4000):
            time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with open(output, "ab") as file:
        file.write(b'/half/a "line')
    assert 4000 < output.stat().st_size < 40 * count  # A row has some 70 bytes.
    assert main(["predict", *command]) == 0
    assert len(read_csv(output)) == count
    assert main(["predict", *flags, f"--output={tmp_path / 'b.csv'}"]) == 0
    assert output.read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert MODEL.num_classes == 5  # So each image has five rows.
    assert output.read_bytes().count(b"\n") == 1 + 5 * count


def test_another_model_of_the_same_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    weights, output = tmp_path / "w.npz", tmp_path / "a.jsonl"
    command = ["predict", f"--weights={weights}", "--images", str(tmp_path / "a.png")]
    command.append(f"--output={output}")
    write(weights)
    assert main(command) == 0
    before = output.read_bytes()
    write(weights, names=("b", "a", "c", "d", "e"))
    assert main(command) == 2 and "other class names" in capsys.readouterr().err
    write(weights)
    assert main([*command, "--image_size=24"]) == 2
    assert main(command) == 0 and output.read_bytes() == before
