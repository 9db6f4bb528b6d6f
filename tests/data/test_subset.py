import pickle

import grain
import numpy as np
import pytest

from tests.data.listed import Listed, label_of, records_of
from tests.small_models import refusal
from vit_jax.data.batches import Chunks
from vit_jax.data.sources.records import Record
from vit_jax.data.sources.subset import Subset


class Numbers(Listed):
    """Records whose label is their position."""

    name = "numbers/train"

    def __init__(self, count: int) -> None:
        super().__init__(Record(bytes([i % 256]), i, f"numbers/{i}") for i in range(count))


SOURCE = Numbers(1000)


def members(size: int, seed: int = 0) -> list[int]:
    return [label_of(record) for record in records_of(Subset(SOURCE, size, seed))]


def test_subsets_are_nested_and_without_repeats() -> None:
    whole = members(1000)
    assert sorted(whole) == list(range(1000))
    for size in (1, 90, 300, 900):
        assert members(size) == whole[:size]


def test_the_seed_draws_another_subset() -> None:
    first, second = members(300), members(300, seed=1)
    assert first == members(300) != second
    # Two independent draws of 30 %: 90 of 300 are the same on average, deviation 6.6.
    assert abs(len(set(first) & set(second)) - 90) < 4.5 * 6.6


def test_it_is_drawn_evenly() -> None:
    drawn = np.bincount(np.concatenate([members(100, seed) for seed in range(200)]), minlength=1000)
    # Each record in 20 of 200 draws on average, deviation 4.2.
    assert np.abs(drawn - 20).max() < 5 * 4.2
    assert abs(np.mean([np.mean(members(100, seed)) for seed in range(200)]) - 499.5) < 10


def test_it_is_what_grain_shuffles() -> None:
    shuffled = grain.MapDataset.range(1000).seed(7).shuffle()[:50]
    assert members(50, seed=7) == list(shuffled)


def test_one_of_14_million_stores_nothing() -> None:
    class Large(Numbers):
        def __len__(self) -> int:
            return 14_000_000

        def __getitem__(self, index: int) -> Record:
            return Record(b"", index, "")

    subset = Subset(Large(1), 13_000_000, 0)
    assert 0 <= label_of(subset[12_999_999]) < 14_000_000
    assert len(pickle.dumps(Subset(SOURCE, 5, 0))) < len(pickle.dumps(SOURCE)) + 1000


def test_it_travels_and_ends() -> None:
    subset = Subset(SOURCE, 5, 0)
    records = records_of(subset)  # makes the order, which need not travel
    assert records_of(pickle.loads(pickle.dumps(subset))) == records
    assert (len(subset), subset.name) == (5, "5 of numbers/train")
    assert subset.class_names == SOURCE.class_names
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            subset[outside]


def test_more_than_there_are_is_an_error() -> None:
    message = refusal(Subset, SOURCE, 1001, 0)
    assert message.startswith(
        "config.data.subset=1001 is more than the 1000 records of numbers/train"
    )


def test_epochs_are_of_the_subset() -> None:
    chunks = Chunks(
        Subset(SOURCE, 6, 0),
        lambda data, rng: np.zeros((1, 1, 3), np.uint8),
        size=(1, 1),
        rows=np.arange(6),
        batch_size=6,
        seed=5,
        shuffle=True,
    )
    epochs = [chunks[step]["labels"].tolist() for step in range(8)]
    assert all(sorted(epoch) == sorted(members(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
