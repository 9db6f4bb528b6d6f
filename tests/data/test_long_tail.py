import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.listed import labels_of, records_of
from tests.small_models import refusal
from vit_jax.data.sources import long_tail
from vit_jax.data.sources.long_tail import LongTail
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Record

IMAGES = 2000
NAME = f"long_tail/classes=50,images={IMAGES}"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def records(data_dir: str) -> list[Record]:
    return records_of(open_source(NAME, "train", data_dir=data_dir))


def pixels(record: Record) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record.image))).astype(float)


def test_frequencies_follow_the_power_law(records: list[Record]) -> None:
    # The first label of an image is drawn from the law as it is: 1 / rank, by default.
    law = 1 / np.arange(1, 51)
    expected = IMAGES * law / law.sum()
    counts = np.bincount([labels_of(record)[0] for record in records], minlength=50)
    # Chi-square with 49 degrees of freedom: 85 is passed once in a thousand times.
    assert ((counts - expected) ** 2 / expected).sum() < 85


@pytest.mark.parametrize("most_draws", [0, 3, 1000])
def test_the_second_label_follows_the_law_of_those_that_are_left(most_draws: int) -> None:
    classes, images = 8, 4000
    draw = long_tail._Classes(classes, 1.5, most_draws)
    pairs = [draw(2, np.random.default_rng((7, i))) for i in range(images)]
    law = np.arange(1, classes + 1) ** -1.5
    law /= law.sum()
    # First i and then j: p_i p_j / (1 - p_i).
    expected = images * law[:, None] * law / (1 - law[:, None])
    np.fill_diagonal(expected, 0)
    counts = np.zeros((classes, classes))
    np.add.at(counts, tuple(np.transpose(pairs)), 1)
    assert counts.diagonal().sum() == 0
    off = ~np.eye(classes, dtype=bool)
    # Chi-square with 55 degrees of freedom: 93 is passed once in a thousand times.
    assert ((counts - expected)[off] ** 2 / expected[off]).sum() < 93


@pytest.mark.parametrize("exponent", [40, 1e308])
def test_an_end_where_one_class_is_nearly_all(exponent: float, tmp_path: Path) -> None:
    name = f"long_tail/classes=8,images=20,exponent={exponent},labels=4"
    for record in records_of(open_source(name, "train", data_dir=str(tmp_path))):
        assert record.label == tuple(range(len(labels_of(record))))


def test_the_default_data_stay_as_they_were_measured(tmp_path: Path) -> None:
    # The header of configs/long_tail.py has accuracies on them.
    examples = LongTail(data_dir=str(tmp_path))._generate_examples(0, 12)
    expected = [[8], [32], [47], [55], [60, 3153, 66, 23], [3, 1276, 18_013], [150], [383], [63]]
    expected += [[4, 709], [500], [11]]
    assert [example["labels"] for _, example in examples] == expected


def test_labels_of_an_image_are_different_and_as_many_as_asked(records: list[Record]) -> None:
    numbers = np.array([len(labels_of(record)) for record in records])
    assert all(len(set(labels_of(record))) == len(labels_of(record)) for record in records)
    assert numbers.min() == 1 and numbers.max() <= 8
    # 1 and more with a mean of 1.26 have a deviation of 0.57.
    assert abs(numbers.mean() - 1.26) < 4 * 0.57 / np.sqrt(IMAGES)


def test_the_classes_are_to_be_seen(data_dir: str, records: list[Record]) -> None:
    """A nearest mean of images with one label tells the classes of others apart."""
    common = range(10)
    means = np.array(
        [np.mean([pixels(r) for r in records if r.label == (c,)], axis=0) for c in common]
    )
    test = [
        r
        for r in records_of(open_source(NAME, "test", data_dir=data_dir))
        if r.label in {(c,) for c in common}
    ]
    assert len(test) > 50
    nearest = [int(np.abs(means - pixels(r)).sum(axis=(1, 2, 3)).argmin()) for r in test]
    assert nearest == [labels_of(r)[0] for r in test]


def test_the_seed_makes_it_all(data_dir: str, records: list[Record], tmp_path: Path) -> None:
    again = records_of(open_source(NAME, "train", data_dir=str(tmp_path)))
    assert again == records
    other = open_source("long_tail/classes=50,images=20,seed=1", "train", data_dir=str(tmp_path))
    assert not {r.image for r in records_of(other)} & {r.image for r in records}


def test_classes_are_as_many_as_in_jft_by_default(tmp_path: Path) -> None:
    source = open_source("long_tail/images=10", "train", data_dir=str(tmp_path))
    assert len(source.class_names) == 18_291
    assert source.class_names[18_290] == "class_18290"


@pytest.mark.parametrize(
    "argument", ["classes=7", "images=9", "labels=0.5", "exponent=-1", "exponent=1e999", "seed=-1"]
)
def test_arguments_that_make_no_data(argument: str, tmp_path: Path) -> None:
    message = refusal(open_source, f"long_tail/{argument}", "train", data_dir=str(tmp_path))
    assert "takes at least 8 classes" in message


@pytest.mark.parametrize("argument", ["clases=9", "classes=nine"])
def test_arguments_that_mean_nothing_are_one_line(argument: str, tmp_path: Path) -> None:
    message = refusal(open_source, f"long_tail/{argument}", "train", data_dir=str(tmp_path))
    assert "clases" in message or "nine" in message


def test_large_numbers_have_directories_of_their_own(tmp_path: Path) -> None:
    names = {LongTail(images=n, data_dir=str(tmp_path)).data_dir for n in (1e7, 10**7, 10**7 + 1)}
    assert len(names) == 2
