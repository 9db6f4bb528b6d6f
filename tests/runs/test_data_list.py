"""The list of a run's data, and how differences are told."""

import os
from pathlib import Path

import pytest

from vit_jax.errors import UserError
from vit_jax.runs.data_list import differences, read, write

LISTS = {"train": {"cat/1.jpg": "9 bytes", "a\tb\\n\n.jpg": "1 bytes"}, "val": {"é\udcff": "2"}}


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read(tmp_path / "data.gz") is None
    write(tmp_path / "data.gz", LISTS)
    assert read(tmp_path / "data.gz") == LISTS


def test_differences_are_told_by_name() -> None:
    old = {"train": {"a": "1", "b": "2", "c": "3"}, "val": {"d": "4"}}
    new = {"train": {"a": "1", "b": "9", "e": "3"}, "val": {}}
    assert differences(old, old) == (0, [])
    found, first = differences(old, new)
    assert found == 4
    assert first == ["train: b was 2 and is 9", "train: c is missing", "train: e was added"]


@pytest.mark.parametrize("kind", ["emptied", "truncated", "flipped", "directory", "fifo", "link"])
def test_a_damaged_list_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "data.gz"
    write(path, LISTS)
    content = bytearray(path.read_bytes())
    if kind in ("emptied", "truncated"):
        path.write_bytes(content[: 0 if kind == "emptied" else 20])
    elif kind == "flipped":
        content[20] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
        if kind == "directory":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to("/absent")
    with pytest.raises(UserError, match=r"data\.gz cannot be read.*--accept_changed_data"):
        read(path)
