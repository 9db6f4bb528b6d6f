"""Only ordinary files are opened, and what is something else has one name everywhere."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.small_models import refusal
from vit_jax.data.images.errors import ImageError
from vit_jax.data.sources.reading import first_bytes, read_image_file
from vit_jax.evaluation.class_map import _read as read_class_map
from vit_jax.reading import open_file, read_bytes, read_text
from vit_jax.runs import data_list, file_list
from vit_jax.runs.config_file import read_stored
from vit_jax.runs.metrics import MetricsWriter
from vit_jax.weights.kinds import require_regular


def _bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # A socket's path may have 108 bytes.


KINDS: dict[str, Callable[[Path], Any]] = {
    "a directory": Path.mkdir,
    "a pipe": os.mkfifo,
    "a socket": _bound,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


def image(path: Path) -> str:
    with pytest.raises(ImageError) as error:
        read_image_file(str(path))
    return str(error.value)


def listed(path: Path) -> str:
    with pytest.raises(file_list.DamagedError) as error:
        file_list.check(path.parent)
    return str(error.value)


def opened(path: Path) -> str:
    with pytest.raises(OSError) as error:
        open_file(path)
    return str(error.value)


# A name and what reads it.
READERS: list[tuple[str, Callable[[Path], str]]] = [
    ("a", opened),
    ("a.jpg", image),
    ("a.npz", lambda path: refusal(require_regular, path)),
    ("a.csv", lambda path: refusal(read_class_map, path)),
    ("config.json", lambda path: refusal(read_stored, path.parent)),
    ("data.gz", lambda path: refusal(data_list.read, path)),
    ("metrics.jsonl", lambda path: refusal(MetricsWriter, path.parent, 1)),
    ("files.json", listed),
]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_named_and_not_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (name, read) in enumerate(READERS):
        folder = tmp_path / str(number)
        folder.mkdir()
        KINDS[kind](folder / name)
        # Links have no place in a checkpoint. A directory there is looked into, and is not listed.
        expected = "a link" if (name, kind) == ("files.json", "a device") else kind
        if (name, kind) != ("files.json", "a directory"):
            assert f"{expected} and not a file" in read(folder / name), name
        assert first_bytes(str(folder / name), 4) == b""


def test_an_ordinary_file_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffKatze\n".encode() + b"x" * 2**20)
    assert read_text(file) == "Katze\n" + "x" * 2**20
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_bytes(link) == file.read_bytes()
    with pytest.raises(OSError, match="larger than 1 MiB"):
        read_bytes(file, most=2**20)
    # A file that says it is empty and is not.
    assert b"Linux" in read_bytes("/proc/version")
