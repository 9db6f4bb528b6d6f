"""Pieces of files: exact bytes, in order, side by side, and through a cache."""

import os
import pickle
import threading
from pathlib import Path

import pytest

from vit_jax.storage import pieces
from vit_jax.storage.cache import Cache
from vit_jax.storage.pieces import Piece, PieceReader

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "shard"
    path.write_bytes(CONTENT)
    return str(path)


def test_pieces_come_in_order_and_exact(file: str) -> None:
    wanted = [Piece(file, start, start + 17, "1") for start in range(5000, 0, -13)]
    found = list(PieceReader().read(wanted))
    assert found == [CONTENT[piece.start : piece.stop] for piece in wanted]
    assert list(PieceReader().read([Piece(file, 3, 3, "1")])) == [b""]


def test_a_piece_beyond_the_end_says_where_the_file_ends(file: str) -> None:
    wanted = [Piece(file, 10_000, 10_300, "1"), Piece(file, 0, 2, "1"), Piece("/no", 0, 1, "1")]
    cut, good, missing = PieceReader().read(wanted)
    assert str(cut) == "the file ends at byte 10,240, before byte 10,300"
    assert good == CONTENT[:2]
    assert isinstance(missing, FileNotFoundError)


def test_several_are_read_at_once(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(8, timeout=10)
    read = pieces.read_piece

    def waits_for_the_others(piece: Piece) -> bytes:
        together.wait()  # Breaks unless eight readers meet.
        return read(piece)

    monkeypatch.setattr(pieces, "read_piece", waits_for_the_others)
    assert len(list(PieceReader().read(Piece(file, i, i + 1, "1") for i in range(8)))) == 8


def test_more_files_than_stay_open(tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / str(i)).write_bytes(b"%d" % i)
    before = len(os.listdir("/proc/self/fd"))
    found = PieceReader().read(
        Piece(str(tmp_path / str(i)), 0, len(str(i)), "") for i in range(300)
    )
    assert list(found) == [b"%d" % i for i in range(300)]
    assert len(os.listdir("/proc/self/fd")) - before <= 128


def test_the_cache_gives_what_was_read_and_never_another_version(file: str, tmp_path: Path) -> None:
    reader = PieceReader(Cache(tmp_path / "cache", 2**20))
    assert list(reader.read([Piece(file, 0, 4, "1")])) == [CONTENT[:4]]
    Path(file).unlink()
    reader = pickle.loads(pickle.dumps(reader))  # As for a data worker.
    assert list(reader.read([Piece(file, 0, 4, "1")])) == [CONTENT[:4]]
    Path(file).write_bytes(b"other content")
    assert list(reader.read([Piece(file, 0, 4, "2")])) == [b"othe"]
