import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
import pytest

from tests.data.listed import Listed
from vit_jax.data import batches
from vit_jax.data.batches import Chunks, batch_spec
from vit_jax.data.images.errors import ImageError
from vit_jax.data.sources.records import Record
from vit_jax.errors import UserError

SIZE = (2, 3)
RECORDS = 23


def records(count: int = RECORDS) -> list[Record]:
    return [Record(bytes([i]), i, f"set/{i}") for i in range(count)]


def transform(data: bytes, rng: np.random.Generator) -> np.ndarray:
    """The record's number in the first value, noise in the others."""
    if data == b"broken":
        raise ImageError("cannot read the image (why)")
    image = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    image[0, 0, 0] = data[0]
    return image


def make(
    source: Iterable[Record] | Mapping[int, Record] | None = None,
    *,
    batch_size: int = 8,
    rows: Iterable[int] | None = None,
    seed: int = 0,
    shuffle: bool = True,
) -> Chunks:
    return Chunks(
        Listed(records() if source is None else source),
        transform,
        size=SIZE,
        rows=np.arange(batch_size) if rows is None else np.array(rows),
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
    )


def batch(chunks: Chunks, step: int) -> dict[str, Any]:
    per_batch = chunks.chunks_per_batch
    pieces = [chunks[i] for i in range(step * per_batch, (step + 1) * per_batch)]
    return {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}


def labels(chunks: Chunks, steps: int) -> list[int]:
    return np.concatenate([batch(chunks, step)["labels"] for step in range(steps)]).tolist()


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def test_a_chunk_holds_records_their_labels_and_weight_1() -> None:
    chunk = make()[0]
    assert {key: (value.dtype, value.shape) for key, value in chunk.items() if key != "errors"} == {
        "images": (np.uint8, (8, *SIZE, 3)),
        "labels": (np.int32, (8,)),
        "weights": (np.float32, (8,)),
    }
    np.testing.assert_array_equal(chunk["images"][:, 0, 0, 0], chunk["labels"])
    assert chunk["weights"].tolist() == [1] * 8
    assert chunk["errors"] == ()


@pytest.mark.parametrize("max_labels", [None, 5])
def test_the_spec_is_what_chunks_make(max_labels: int | None) -> None:
    source = Listed([r._replace(label=()) if max_labels else r for r in records()], max_labels)
    chunks = Chunks(source, transform, SIZE, np.arange(8), 8, seed=0, shuffle=True)
    spec = batch_spec(max_labels, 8, SIZE)
    assert chunks.spec == spec
    assert spec["labels"].shape == ((8,) if max_labels is None else (8, 5))
    found = batch(chunks, 0)
    assert {name: (found[name].shape, found[name].dtype) for name in spec} == spec


def test_a_record_without_a_label_counts_and_has_label_minus_1() -> None:
    source = [record._replace(label=-1) if record.label == 2 else record for record in records()]
    found = make(source, shuffle=False)[0]
    assert found["labels"].tolist() == [0, 1, -1, 3, 4, 5, 6, 7]
    assert found["weights"].tolist() == [1] * 8


@pytest.mark.parametrize("label", [2, -2])
def test_a_label_that_is_no_class_names_the_record(label: int) -> None:
    source = Listed([Record(b"x", label, "set/0")], class_names=("a", "b"))
    chunks = Chunks(source, transform, SIZE, np.arange(1), 1, seed=0, shuffle=True)
    with pytest.raises(UserError, match=f"set/0: label {label} is not one of the 2 classes"):
        chunks[0]


@pytest.mark.parametrize(("label", "max_labels"), [((0, 1, 2), 2), ((0, 1), None)])
def test_too_many_labels_name_the_record(label: tuple[int, ...], max_labels: int | None) -> None:
    source = Listed([Record(b"x", label, "set/0")], max_labels)
    chunks = Chunks(source, transform, SIZE, np.arange(1), 1, seed=0, shuffle=True)
    with pytest.raises(UserError, match=f"set/0 has {len(label)} labels"):
        chunks[0]


def test_each_epoch_is_a_permutation_of_all_records() -> None:
    order = labels(make(), RECORDS)  # 23 batches of 8 are 8 epochs.
    epochs = [tuple(order[i : i + RECORDS]) for i in range(0, len(order), RECORDS)]
    assert len(set(epochs)) == 8
    assert {tuple(sorted(epoch)) for epoch in epochs} == {tuple(range(RECORDS))}


def test_the_order_depends_on_the_seed() -> None:
    assert labels(make(), 3) == labels(make(), 3) != labels(make(seed=1), 3)


def test_epochs_are_shuffled_well() -> None:
    # In 460 epochs of 23 records each record stands first in 20 on average, deviation 4.4.
    firsts = labels(make(batch_size=RECORDS, rows=[0]), 460)
    assert np.abs(np.bincount(firsts, minlength=RECORDS) - 20).max() < 4.5 * 4.4


@pytest.mark.parametrize("chunk_rows", [1, 3, 7, 8])
def test_chunking_changes_nothing(chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [batch(make(), step) for step in range(4)]
    monkeypatch.setattr(batches, "_CHUNK_BYTES", chunk_rows * 2 * 3 * 3)
    chunks = make()
    assert (chunks.chunk_rows, chunks.chunks_per_batch) == (chunk_rows, -(-8 // chunk_rows))
    for step in range(4):
        assert_same(batch(chunks, step), whole[step])


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_process_makes_its_rows_of_the_batch(shuffle: bool) -> None:
    whole, first, second = (
        make(rows=rows, shuffle=shuffle) for rows in (range(8), [0, 1, 2, 7], [3, 4, 5, 6])
    )
    for step in range(4):
        a, b, both = batch(first, step), batch(second, step), batch(whole, step)
        for key in ("images", "labels", "weights"):
            np.testing.assert_array_equal(both[key][[0, 1, 2, 7]], a[key])
            np.testing.assert_array_equal(both[key][3:7], b[key])


def test_a_chunk_does_not_depend_on_what_was_made_before() -> None:
    chunks = make()
    late = chunks[1000]
    for i in range(5):
        chunks[i]
    assert_same(late, chunks[1000])


def test_what_is_random_differs_in_every_row_step_and_epoch_and_with_the_seed() -> None:
    noise = {
        image[1].tobytes()
        for chunks, step in itertools.product([make(), make(seed=1)], range(9))
        for image in batch(chunks, step)["images"]
    }
    assert len(noise) == 2 * 9 * 8


def test_what_is_random_depends_on_seed_step_and_row_alone() -> None:
    other = make([Record(bytes([9]), 9, "other")] * 50)
    for step in range(3):
        images, others = batch(make(), step)["images"], batch(other, step)["images"]
        np.testing.assert_array_equal(images[:, 1:], others[:, 1:])


@pytest.mark.parametrize(("count", "steps"), [(23, 3), (24, 3), (25, 4), (3, 1), (1, 1), (8, 1)])
def test_in_order_every_record_comes_once_and_the_tail_weighs_0(count: int, steps: int) -> None:
    chunks = make(records(count), shuffle=False)
    assert chunks.steps_per_epoch == steps
    # The second epoch is the first one again.
    for first in (0, steps):
        found = [batch(chunks, first + step) for step in range(steps)]
        weights = np.concatenate([b["weights"] for b in found])
        assert weights.tolist() == [1] * count + [0] * (steps * 8 - count)
        assert np.concatenate([b["labels"] for b in found])[:count].tolist() == list(range(count))
        assert all(b["images"][b["weights"] == 0].max(initial=0) == 0 for b in found)


def test_rows_past_the_end_are_filled_up_in_every_process() -> None:
    # Three records in a batch of eight: the second process has none of them.
    chunk = make(records(3), rows=[4, 5, 6, 7], shuffle=False)[0]
    assert (chunk["weights"].tolist(), chunk["images"].max(), chunk["errors"]) == ([0] * 4, 0, ())


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_unreadable_record_keeps_its_row(shuffle: bool) -> None:
    good = batch(make(shuffle=shuffle), 0)
    source = records()
    victim = int(good["labels"][5])
    source[victim] = Record(b"broken", victim, "set/victim")
    found = batch(make(source, shuffle=shuffle), 0)
    assert found["errors"].tolist() == ["set/victim: cannot read the image (why)"]
    assert found["weights"].tolist() == [1, 1, 1, 1, 1, 0, 1, 1]
    assert found["images"][5].max() == 0
    rest = np.arange(8) != 5
    np.testing.assert_array_equal(found["labels"], good["labels"])
    np.testing.assert_array_equal(found["images"][rest], good["images"][rest])


def test_faults_of_the_source_are_not_taken_for_bad_images() -> None:
    class Vanished(dict[Any, Any]):
        def __getitem__(self, index: int) -> NoReturn:
            raise UserError("cannot read the file")

    with pytest.raises(UserError, match="cannot read the file"):
        make(Vanished(enumerate(records())))[0]
    with pytest.raises(KeyError):
        make({0: records()[0], 7: records()[1]}, shuffle=False)[0]


def test_a_batch_may_be_larger_than_the_data() -> None:
    found = labels(make(records(3), batch_size=8), 3)
    assert [sorted(found[i : i + 3]) for i in range(0, 24, 3)] == [[0, 1, 2]] * 8


def test_chunks_are_of_about_4_megabytes() -> None:
    chunks = Chunks(Listed(records()), transform, (224, 224), np.arange(4096), 4096, 0, True)
    assert chunks.chunk_rows == 4 * 2**20 // (224 * 224 * 3) == 27
    assert chunks.chunks_per_batch == 152  # 4096 / 27 = 151.7
    huge = Chunks(Listed(records()), transform, (2048, 2048), np.arange(4), 4, 0, True)
    assert (huge.chunk_rows, huge.chunks_per_batch) == (1, 4)
