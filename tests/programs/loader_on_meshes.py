"""Batches on meshes of eight devices: which rows each device holds, and which a process needs."""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from tests.data.listed import Listed
from vit_jax.data.batches import Chunks
from vit_jax.data.loader import Loader, local_rows
from vit_jax.data.sources.records import Record
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import batch_sharding


def transform(data: bytes, rng: np.random.Generator) -> np.ndarray:
    return np.full((2, 2, 3), data[0], np.uint8)


def check_mesh(config: MeshConfig) -> None:
    """Each device holds its share of every batch, and records come in order."""
    source = Listed([Record(bytes([i]), i, str(i)) for i in range(20)])
    sharding = batch_sharding(make_mesh(config))
    chunks = Chunks(source, transform, (2, 2), local_rows(16, sharding), 16, seed=0, shuffle=False)
    with Loader(chunks, sharding, start=0, stop=2, workers=0, on_error="stop") as loader:
        batches = list(loader)
    for batch in batches:
        for array in batch.values():
            assert array.sharding == sharding and len(array.addressable_shards) == 8
            assert array.addressable_shards[0].data.shape[0] == 16 // (8 // config.tensor)
    labels = np.concatenate([batch["labels"] for batch in batches])
    assert labels.tolist() == list(range(20)) + [-1] * 12
    images = np.concatenate([batch["images"] for batch in batches])
    assert (images == np.maximum(labels, 0)[:, None, None, None]).all()


def one_of_two(*slices: slice) -> NamedSharding:
    """A sharding as one of two processes sees it, whose devices hold the given slices."""

    class Sharding:
        def addressable_devices_indices_map(self, shape: tuple[int, ...]) -> dict[int, Any]:
            return {i: (piece,) for i, piece in enumerate(slices)}

    return Sharding()  # type: ignore[return-value]


def check_batches() -> None:
    """All of it, in a process of eight devices."""
    assert len(jax.devices()) == 8
    whole = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert local_rows(16, batch_sharding(whole)).tolist() == list(range(16))
    for config in (MeshConfig(), MeshConfig(fsdp=4), MeshConfig(data=2, fsdp=2, tensor=2)):
        check_mesh(config)
    # Rows need not be contiguous, and several devices may hold the same ones.
    scattered = one_of_two(slice(12, 16), slice(0, 4), slice(12, 16), slice(0, 4))
    assert local_rows(16, scattered).tolist() == [0, 1, 2, 3, 12, 13, 14, 15]
    assert local_rows(16, one_of_two(slice(None))).tolist() == list(range(16))
