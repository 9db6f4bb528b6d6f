"""`data.cache_dir`: used where shards are read in pieces, refused where it would be ignored."""

from pathlib import Path

import pytest

from tests.data.pictures import encode, pixels
from tests.data.tfrecord_data import copy_tfrecord
from vit_jax.data.config import DataConfig
from vit_jax.data.sources.records import fetch
from vit_jax.errors import UserError
from vit_jax.training.setup import open_training


def test_a_subset_of_shards_is_read_through_the_cache(tmp_path: Path) -> None:
    directory = copy_tfrecord(tmp_path / "data")
    config = DataConfig(
        dataset="swatches",
        train="train[2:]",
        subset=9,
        data_dir=str(tmp_path / "data"),
        cache_dir=str(tmp_path / "cache"),
        cache_gib=0.1,
    )
    source = open_training(config)
    before = list(fetch(source, range(9)))
    assert before == [source[i] for i in range(9)]
    for shard in directory.glob("*.tfrecord-*"):
        shard.write_bytes(bytes(shard.stat().st_size))
    assert list(fetch(source, range(9))) == before


def test_a_cache_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "photos" / name / f"{i}.png").write_bytes(encode(pixels(4, 4)))
    config = DataConfig(dataset=str(tmp_path / "photos"), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"config.data.cache_dir would be ignored: .*photos/train"):
        open_training(config)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cache_gib": 5.0}, "cache_gib would be ignored: it needs cache_dir"),
        ({"cache_dir": "cache", "cache_gib": 0.0}, "cache_gib must be above 0, not 0.0"),
    ],
)
def test_sizes_that_are_refused(options: dict[str, float | str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        DataConfig(dataset="digits", **options)
