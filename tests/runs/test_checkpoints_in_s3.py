"""Checkpoints in S3, where Orbax writes as it does in `gs://`: complete or none, and verified."""

import gc
from collections.abc import Iterator

import pytest

from tests.runs.checkpoints_in_buckets import open_in_bucket, restored_in_bucket, save_three
from tests.s3_server import s3_bucket
from vit_jax.errors import UserError
from vit_jax.runs import orbax_in_buckets
from vit_jax.runs.checkpoints import Checkpoints
from vit_jax.runs.directory import newest_checkpoint
from vit_jax.storage import objects

RUN = "s3://bkt/a run"

# Orbax abandons its other reads when one fails.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def bucket() -> Iterator[str]:
    yield from s3_bucket()
    gc.collect()  # Here, where the warnings about them are filtered.


@pytest.fixture(scope="module")
def content(bucket: str) -> dict[str, bytes]:
    """What three saves leave, of which two checkpoints stay."""
    save_three(RUN)
    return {name: objects.read_bytes(f"{RUN}/{name}") for name in objects.list_files(RUN)}


@pytest.fixture
def saved(content: dict[str, bytes]) -> None:
    """The checkpoints of steps 2 and 3 are in the bucket."""
    for name in objects.list_files(RUN):
        objects.delete(f"{RUN}/{name}")
    for name, data in content.items():
        objects.write_bytes(f"{RUN}/{name}", data)


def _open() -> Checkpoints:
    return open_in_bucket(RUN)


def _restored() -> int | None:
    return restored_in_bucket(RUN)


def test_the_newest_are_kept_and_restored(saved: None) -> None:
    assert objects.list_names(f"{RUN}/checkpoints") == ["2", "3"]
    assert newest_checkpoint(RUN) == 3
    names = objects.list_files(f"{RUN}/checkpoints/3")
    assert {"commit_success.txt", "files.json", "state/manifest.ocdbt"} <= set(names)
    assert _restored() == 3


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_broken_one_is_moved_aside(saved: None, damage: str) -> None:
    directory = f"{RUN}/checkpoints/3"
    sizes = objects.list_files(directory)
    name = max((n for n in sizes if n.startswith("state/d/")), key=lambda n: sizes[n])
    path, content = f"{directory}/{name}", bytearray(objects.read_bytes(f"{directory}/{name}"))
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        objects.write_bytes(path, bytes(content))
    elif damage == "truncated":
        objects.write_bytes(path, bytes(content[:-1]))
    else:
        objects.delete(path)
    assert _restored() == 2
    assert objects.list_names(f"{RUN}/checkpoints") == ["2"]
    assert objects.list_names(f"{RUN}/unreadable") == ["3"]


def test_one_that_was_never_complete_is_none(saved: None) -> None:
    objects.delete(f"{RUN}/checkpoints/3/commit_success.txt")
    assert newest_checkpoint(RUN) == 2
    assert _restored() == 2
    assert objects.list_names(RUN) == ["checkpoints"]


def test_an_orbax_that_cannot_be_taught_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orbax_in_buckets, "_is_known", False)
    with pytest.raises(UserError, match=r"s3://bkt/.*pip install orbax-checkpoint==0\.12"):
        _open()
