"""Unequal classes: balanced sampling, class weights, and the labels that both are made from."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from tests.data.listed import Listed
from tests.data.pictures import encode, pixels
from vit_jax.data.batches import Chunks
from vit_jax.data.order import Balanced, records_by_class
from vit_jax.data.sources.folder import FolderSource
from vit_jax.data.sources.labels import balanced_weights, class_counts, labels_of_source
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Record
from vit_jax.data.sources.subset import Subset
from vit_jax.errors import UserError

# 10 : 3 : 1, in no order of classes; class 3 has no record, and one record no label.
LABELS = np.random.default_rng(0).permutation([0] * 10 + [1] * 3 + [2] + [-1])
NAMES = ("a", "b", "c", "d")


def source() -> Listed:
    records = [Record(b"", int(label), f"set/{i}") for i, label in enumerate(LABELS)]
    return Listed(records, class_names=NAMES)


def drawn(count: int, seed: int = 0) -> np.ndarray:
    order = Balanced(records_by_class(source()), seed)
    return np.array([order[position] for position in range(count)])


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_every_class_has_its_share_at_any_position(seed: int) -> None:
    labels = LABELS[drawn(100, seed)]
    for count in range(1, 101):
        shares = np.bincount(labels[:count], minlength=4)
        assert set(shares[:3]) <= {count // 3, -(-count // 3)}
        assert shares[3] == 0 and (labels >= 0).all()


def test_each_record_of_a_class_comes_once_before_any_comes_again() -> None:
    found = drawn(3 * 30)
    for label, count in ((0, 10), (1, 3), (2, 1)):
        mine = found[LABELS[found] == label]
        for start in range(0, 30, count):
            assert len(set(mine[start : start + count])) == count
    big = found[LABELS[found] == 0]
    assert not np.array_equal(big[:10], big[10:20])  # Another order in each round.


def test_the_draw_depends_on_seed_and_position_alone() -> None:
    order = Balanced(records_by_class(source()), 5)
    forward = [order[p] for p in range(40)]
    assert [order[p] for p in reversed(range(40))][::-1] == forward
    assert not np.array_equal(drawn(40, 5), drawn(40, 6))


def test_batches_hold_the_drawn_records() -> None:
    def transform(data: bytes, rng: np.random.Generator) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)

    listed = source()
    chunks = Chunks(
        listed,
        transform,
        size=(2, 2),
        rows=np.arange(6),
        batch_size=6,
        seed=3,
        shuffle=True,
        classes=records_by_class(listed),
    )
    for step in (0, 7):
        labels = np.concatenate(
            [
                chunks[i]["labels"]
                for i in range(step * chunks.chunks_per_batch, (step + 1) * chunks.chunks_per_batch)
            ]
        )
        assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]
        np.testing.assert_array_equal(labels, LABELS[drawn(60, 3)][step * 6 : step * 6 + 6])


def test_weights_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        labels = rng.choice(7, 200, p=rng.dirichlet(np.ones(7)))
        counts = np.bincount(labels, minlength=7)
        present = np.flatnonzero(counts)
        wanted = compute_class_weight("balanced", classes=present, y=labels)
        np.testing.assert_allclose(balanced_weights(counts)[present], wanted, rtol=1e-6)
        np.testing.assert_array_equal(balanced_weights(counts)[counts == 0], 1)


def test_labels_of_any_source(tmp_path: Path) -> None:
    for name, count in (("cat", 3), ("dog", 5)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.png").write_bytes(encode(pixels(4, 4), "PNG"))
    folder = open_source(str(tmp_path), "all")
    assert isinstance(folder, FolderSource)
    parts = open_source(str(tmp_path), "train[1:]+test")
    for each in (folder, parts, Subset(folder, 5, 1), source()):
        wanted = [each[i].label for i in range(len(each))]
        assert labels_of_source(each).tolist() == wanted
    assert class_counts(folder).tolist() == [3, 5]
    assert class_counts(source()).tolist() == [10, 3, 1, 0]


def test_what_has_several_labels_or_none_is_refused() -> None:
    several = Listed([Record(b"", (0, 1), "set/0")], max_labels=2, class_names=NAMES)
    with pytest.raises(UserError, match="several labels"):
        labels_of_source(several)
    with pytest.raises(UserError, match="no record of listed/train has a label"):
        records_by_class(Listed([Record(b"", -1, "set/0")], class_names=NAMES))
