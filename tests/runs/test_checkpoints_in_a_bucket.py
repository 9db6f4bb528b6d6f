"""Checkpoints in a bucket: complete or none, verified, the broken ones moved aside."""

import base64
import gc
import hashlib
import json
from collections.abc import Iterator

import orbax.checkpoint as ocp
import pytest
import tensorstore
from orbax.checkpoint._src.path import gcs_utils

from tests import bucket_server
from tests.bucket_api import Bucket
from tests.runs.checkpoints_in_buckets import open_in_bucket, restored_in_bucket, save_three
from tests.runs.saved_states import training_shapes
from vit_jax.errors import StorageError
from vit_jax.runs.checkpoints import CheckpointConfig, Checkpoints
from vit_jax.runs.directory import newest_checkpoint
from vit_jax.storage import objects, retrying

RUN = "gs://bkt/run"

# Orbax abandons its other reads when one fails.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _collect() -> Iterator[None]:
    yield
    gc.collect()  # Here, where the warnings about them are filtered.


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    """One bucket for all tests of this file: TensorStore keeps the first address it is told."""
    with bucket_server.serving() as bucket, pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment().items():
            patch.setenv(name, value)
        yield bucket


@pytest.fixture
def saved(server: Bucket) -> Bucket:
    """A bucket that holds the checkpoints of steps 2 and 3, of three that were saved."""
    server.objects.buckets["bkt"].clear()
    save_three(RUN)
    return server


def _open() -> Checkpoints:
    return open_in_bucket(RUN)


def _restored() -> int | None:
    return restored_in_bucket(RUN)


def test_the_newest_are_kept_and_restored(saved: Bucket) -> None:
    assert objects.list_names(f"{RUN}/checkpoints") == ["2", "3"]
    assert newest_checkpoint(RUN) == 3
    # An account that may use objects may not ask for the bucket itself.
    assert not [kind for kind, _ in saved.faults.counts if kind == "bucket"]
    assert _restored() == 3


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "other"])
def test_a_broken_one_is_moved_aside(saved: Bucket, damage: str) -> None:
    directory = f"{RUN}/checkpoints/3"
    sizes = objects.list_files(directory)
    name = max((n for n in sizes if n.startswith("state/d/")), key=lambda n: sizes[n])
    path, content = f"{directory}/{name}", bytearray(objects.read_bytes(f"{directory}/{name}"))
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        objects.write_bytes(path, bytes(content))
    elif damage == "truncated":
        objects.write_bytes(path, bytes(content[:-1]))
    elif damage == "missing":
        objects.delete(path)
    else:  # Another checkpoint under its name.
        for each in objects.list_files(directory):
            objects.delete(f"{directory}/{each}")
        for each in objects.list_files(f"{RUN}/checkpoints/2"):
            data = objects.read_bytes(f"{RUN}/checkpoints/2/{each}")
            objects.write_bytes(f"{directory}/{each}", data)
    assert _restored() == 2
    assert objects.list_names(f"{RUN}/checkpoints") == ["2"]
    assert objects.list_names(f"{RUN}/unreadable") == ["3"]


def test_one_that_was_never_complete_is_none(saved: Bucket) -> None:
    objects.delete(f"{RUN}/checkpoints/3/commit_success.txt")
    assert newest_checkpoint(RUN) == 2
    assert _restored() == 2
    assert objects.list_names(RUN) == ["checkpoints"]


def test_a_bucket_that_does_not_answer_makes_no_checkpoint_a_broken_one(
    saved: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(path: object) -> dict[str, int]:
        raise StorageError(f"{path}: no good answer in 120 s")

    with _open() as checkpoints, monkeypatch.context() as patch:
        patch.setattr(objects, "list_files", no_answer)
        with pytest.raises(StorageError, match="no good answer"):
            checkpoints.restore(training_shapes())
        with pytest.raises(StorageError, match="no good answer"):  # Not: no best weights.
            checkpoints.restore_step(3, training_shapes())
    assert objects.list_names(f"{RUN}/checkpoints") == ["2", "3"]
    assert _restored() == 3


def test_a_bucket_that_stops_answering_as_arrays_are_read(
    saved: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorStore makes requests again as often as is said to it, and the checkpoint stays."""

    def restore(self: object, directory: object, args: object) -> None:
        """Reads as Orbax does, once its own files are read."""
        spec = gcs_utils.get_kvstore_for_gcs(f"{directory}/")
        saved.faults.counts.clear()
        for kind in ("read", "ranged read"):
            saved.faults.inject(kind, "503")
        tensorstore.KvStore.open(spec).result().read("manifest.ocdbt").result()

    with _open() as checkpoints, monkeypatch.context() as patch:
        patch.setattr(retrying.retrying, "patience", retrying.Patience(0.01, 0.02, 0.1))
        patch.setattr(ocp.StandardCheckpointHandler, "restore", restore)
        with pytest.raises(
            StorageError, match="retry attempts failed.*; check the network"
        ) as told:
            checkpoints.restore(training_shapes())
        for kind in ("read", "ranged read"):
            saved.faults.inject(kind)
    assert str(told.value).startswith(f"{RUN}/checkpoints/3: ") and "\n" not in str(told.value)
    # Pauses of 0.01 s and 0.02 s, as many as fit into 0.1 s, with a try before each and a last one.
    assert sum(n for (_, how), n in saved.faults.counts.items() if how == "503") in (5, 6)
    assert objects.list_names(f"{RUN}/checkpoints") == ["2", "3"]
    assert _restored() == 3


def test_another_run_s_is_not_restored(saved: Bucket) -> None:
    with (
        Checkpoints(f"{RUN}/checkpoints", CheckpointConfig(), {"run": "b"}) as checkpoints,
        pytest.raises(ValueError, match="it is that of another run"),
    ):
        checkpoints.restore(training_shapes())


def test_the_list_holds_the_digests_of_the_bucket(saved: Bucket) -> None:
    directory = f"{RUN}/checkpoints/3"
    listed = json.loads(objects.read_bytes(f"{directory}/files.json"))["files"]
    assert len(listed) > 8
    for name, (size, digest) in listed.items():
        content = objects.read_bytes(f"{directory}/{name}")
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        assert (size, digest) == (len(content), f"md5:{md5}")
