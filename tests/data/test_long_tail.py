import io

import numpy as np
import pytest
from PIL import Image

from tests.small_models import refusal
from vit_jax.data.sources import long_tail
from vit_jax.data.sources.long_tail import LongTail
from vit_jax.data.sources.open import open_source

IMAGES = 2000
NAME = f"long_tail/classes=50,images={IMAGES}"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def records(data_dir) -> list:
    return list(open_source(NAME, "train", data_dir=data_dir))


def pixels(record) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record.image))).astype(float)


def test_frequencies_follow_the_power_law(records):
    # The first label of an image is drawn from the law as it is: 1 / rank, by default.
    law = 1 / np.arange(1, 51)
    expected = IMAGES * law / law.sum()
    counts = np.bincount([record.label[0] for record in records], minlength=50)
    # Chi-square with 49 degrees of freedom: 85 is passed once in a thousand times.
    assert ((counts - expected) ** 2 / expected).sum() < 85


@pytest.mark.parametrize("most_draws", [0, 3, 1000])
def test_the_second_label_follows_the_law_of_those_that_are_left(most_draws):
    classes, images = 8, 4000
    draw = long_tail._Classes(classes, 1.5, most_draws)
    pairs = [draw(2, np.random.default_rng((7, i))) for i in range(images)]
    law = np.arange(1, classes + 1) ** -1.5
    law /= law.sum()
    # Of first i and then j: p_i p_j / (1 - p_i).
    expected = images * law[:, None] * law / (1 - law[:, None])
    np.fill_diagonal(expected, 0)
    counts = np.zeros((classes, classes))
    np.add.at(counts, tuple(np.transpose(pairs)), 1)
    assert counts.diagonal().sum() == 0
    off = ~np.eye(classes, dtype=bool)
    # Chi-square with 55 degrees of freedom: 93 is passed once in a thousand times.
    assert ((counts - expected)[off] ** 2 / expected[off]).sum() < 93


@pytest.mark.parametrize("exponent", [40, 1e308])
def test_an_end_where_one_class_is_nearly_all(exponent, tmp_path):
    name = f"long_tail/classes=8,images=20,exponent={exponent},labels=4"
    for record in open_source(name, "train", data_dir=str(tmp_path)):
        assert record.label == tuple(range(len(record.label)))


def test_the_default_data_stay_as_they_were_measured(tmp_path):
    # The header of configs/long_tail.py has accuracies on them.
    examples = LongTail(data_dir=str(tmp_path))._generate_examples(0, 12)
    expected = [[8], [32], [47], [55], [60, 3153, 66, 23], [3, 1276, 18_013], [150], [383], [63]]
    expected += [[4, 709], [500], [11]]
    assert [example["labels"] for _, example in examples] == expected


def test_labels_of_an_image_are_different_and_as_many_as_asked(records):
    numbers = np.array([len(record.label) for record in records])
    assert all(len(set(record.label)) == len(record.label) for record in records)
    assert numbers.min() == 1 and numbers.max() <= 8
    # 1 and more with a mean of 1.26 have a deviation of 0.57.
    assert abs(numbers.mean() - 1.26) < 4 * 0.57 / np.sqrt(IMAGES)


def test_the_classes_are_to_be_seen(data_dir, records):
    """A nearest mean of images with one label tells the classes of others apart."""
    common = range(10)
    means = np.array(
        [np.mean([pixels(r) for r in records if r.label == (c,)], axis=0) for c in common]
    )
    test = [
        r for r in open_source(NAME, "test", data_dir=data_dir) if r.label in {(c,) for c in common}
    ]
    assert len(test) > 50
    nearest = [int(np.abs(means - pixels(r)).sum(axis=(1, 2, 3)).argmin()) for r in test]
    assert nearest == [r.label[0] for r in test]


def test_the_seed_makes_it_all(data_dir, records, tmp_path):
    again = list(open_source(NAME, "train", data_dir=str(tmp_path)))
    assert again == records
    other = open_source("long_tail/classes=50,images=20,seed=1", "train", data_dir=str(tmp_path))
    assert not {r.image for r in other} & {r.image for r in records}


def test_classes_are_as_many_as_in_jft_by_default(tmp_path):
    source = open_source("long_tail/images=10", "train", data_dir=str(tmp_path))
    assert len(source.class_names) == 18_291
    assert source.class_names[18_290] == "class_18290"


@pytest.mark.parametrize(
    "argument", ["classes=7", "images=9", "labels=0.5", "exponent=-1", "exponent=1e999", "seed=-1"]
)
def test_arguments_that_make_no_data(argument, tmp_path):
    message = refusal(open_source, f"long_tail/{argument}", "train", data_dir=str(tmp_path))
    assert "takes at least 8 classes" in message


@pytest.mark.parametrize("argument", ["clases=9", "classes=nine"])
def test_arguments_that_mean_nothing_are_one_line(argument, tmp_path):
    message = refusal(open_source, f"long_tail/{argument}", "train", data_dir=str(tmp_path))
    assert "clases" in message or "nine" in message


def test_large_numbers_have_directories_of_their_own(tmp_path):
    names = {LongTail(images=n, data_dir=str(tmp_path)).data_dir for n in (1e7, 10**7, 10**7 + 1)}
    assert len(names) == 2
