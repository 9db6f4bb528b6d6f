"""Saves that fail for want of room."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from vit_jax.errors import UserError
from vit_jax.runs.checkpoints import CheckpointConfig, Checkpoints

STATE = {"w": jax.random.normal(jax.random.key(0), (512, 512))}
LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), STATE)


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Files of more than 64 KiB fail to be written, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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
        message = r"step 2 could not be saved.*last good checkpoint: step 1.*free space"
        with no_room(), pytest.raises(UserError, match=message):
            checkpoints.save(2, STATE)
            checkpoints.wait()
    assert restored_step(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
