"""An index of 14 million records: opened at once at any step, in bounded memory."""

import multiprocessing
import resource
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vit_jax.data.order import shuffled
from vit_jax.data.sources.index_file import Scanned, Shard, to_bytes
from vit_jax.data.sources.shard_index import ShardIndex, open_index

SHARDS, OF_SHARD, LENGTH = 2000, 7000, 110_000
BATCH = 1024


def shards() -> list[Shard]:
    names = [f"many-train.tfrecord-{i:05}-of-{SHARDS:05}" for i in range(SHARDS)]
    return [Shard(name, f"/none/{name}", OF_SHARD * LENGTH, "1") for name in names]


class Opened(NamedTuple):
    """What opening at a step took, and where the records of its first batch lie."""

    seconds: float
    gib: float
    places: list[tuple[int, int]]
    records: list[int]


def _open_at(directory: str, step: int) -> Opened:
    def scan(shard: Shard) -> Scanned:
        raise AssertionError(shard)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    index: ShardIndex = open_index(directory, "train.index", shards(), scan)
    order = shuffled(len(index), seed=0)
    records = [order[position] for position in range(step * BATCH, (step + 1) * BATCH)]
    places = []
    for record in records:
        number, row = index.locate(record)
        places.append((number, int(index.columns["starts"][row])))
    seconds = time.process_time() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Opened(seconds, (after - before) / 2**20, places, records)


def test_step_1_000_000_of_14_million_records_begins_as_fast_as_step_0(tmp_path: Path) -> None:
    starts = np.arange(OF_SHARD, dtype=np.uint64) * np.uint64(LENGTH)
    scanned = Scanned(OF_SHARD, {"starts": starts})
    (tmp_path / "train.index").write_bytes(to_bytes([(shard, scanned) for shard in shards()]))
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        first, late = (pool.apply(_open_at, (str(tmp_path), step)) for step in (0, 1_000_000))
    assert late.seconds < first.seconds + 5
    assert max(first.gib, late.gib) < 1
    for opened in (first, late):
        assert len(set(opened.records)) == BATCH
        assert opened.places == [
            (record // OF_SHARD, record % OF_SHARD * LENGTH) for record in opened.records
        ]
    assert first.records != late.records
