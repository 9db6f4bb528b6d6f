"""A data set's classes matched with a model's: by name, and never silently by position."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_models import refusal
from vit_jax.evaluation.class_map import ClassMap, match_classes
from vit_jax.weights.classes import (
    imagenet21k_names,
    imagenet21k_synsets,
    imagenet_names,
    imagenet_synsets,
)

ANIMALS = ("cat", "dog", "ship")


def match(data: Any, model: Any, num_classes: Any = None, **options: Any) -> ClassMap:
    count = num_classes or len(model)
    found = match_classes(data, model, count, data="photos/test", **options)
    assert found is not None
    return found


def test_equal_classes_need_no_words() -> None:
    found = match(ANIMALS, ANIMALS)
    assert found.labels == (0, 1, 2) and found.how == "" and found.scope == ""


def test_another_order_and_a_part_are_found_by_name() -> None:
    found = match(("ship", "dog"), ANIMALS)
    assert found.labels == (2, 1)
    assert found.how == "2 classes are 2 of the model's 3, matched by name"
    assert found.scope == " (2 of 3 classes, over all logits)"
    assert found.subset().scope == " (2 of 3 classes, over these alone)"


def test_a_head_may_have_more_logits_than_names() -> None:
    assert match(("dog", "cat"), ("cat", "dog"), num_classes=12).labels == (1, 0)


TABBY, EGYPTIAN_CAT, CHIHUAHUA, CARDIGAN_DOG, CARDIGAN = 281, 285, 151, 264, 474


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("tabby, tabby cat", TABBY),
        ("tabby", TABBY),
        ("tabby cat", TABBY),
        ("Tabby_Cat", TABBY),
        ("n02123045", TABBY),
        ("n02123045-tabby", TABBY),
        ("Egyptian cat", EGYPTIAN_CAT),
        ("egyptian-cat", EGYPTIAN_CAT),
        ("n02085620-Chihuahua", CHIHUAHUA),
        ("mountain lion", 286),
        ("puma", 286),
        # Two classes differ by a capital letter alone.
        ("Cardigan", CARDIGAN_DOG),
        ("cardigan", CARDIGAN),
        # A name goes before a synonym: this word stands for two classes.
        ("missile", 657),
        ("projectile", 744),
        ("n02012849", 134),
        ("n03126707", 517),
    ],
)
@pytest.mark.parametrize("model", [imagenet_names(), imagenet_synsets()])
def test_ids_names_and_synonyms_of_imagenet_are_one(name: str, label: Any, model: Any) -> None:
    assert match((name,), model).labels == (label,)


def test_all_ids_in_any_order() -> None:
    order = np.random.default_rng(0).permutation(1000)
    data = tuple(imagenet_synsets()[i] for i in order)
    assert match(data, imagenet_names()).labels == tuple(order)


def test_the_first_words_as_torchvision_has_them() -> None:
    """All but the words that stand for two classes."""
    first = [name.split(", ")[0] for name in imagenet_names()]
    data = [name for name in first if first.count(name) == 1]
    assert len(data) == 996
    labels = match(data[::-1], imagenet_names()).labels
    assert [first[label] for label in labels] == data[::-1]


def test_a_model_of_imagenet_21k_knows_imagenets_ids() -> None:
    found = match(("n02123045", "n02085620"), imagenet21k_names())
    assert [imagenet21k_synsets()[label] for label in found.labels] == ["n02123045", "n02085620"]


def test_a_word_of_two_classes_is_refused() -> None:
    message = refusal(match, ("crane", "tabby"), imagenet_names())
    assert "photos/test: 1 of its 2 classes" in message
    assert "'crane' (may be 134 or 517)" in message and "--class_map=FILE" in message


def test_two_names_of_one_class_are_refused() -> None:
    message = refusal(match, ("tabby", "tabby cat"), imagenet_names())
    assert "'tabby' and 'tabby cat' are both the model's class 'tabby, tabby cat'" in message


def test_what_does_not_match_is_refused_with_both_lists() -> None:
    message = refusal(
        match, ("cat", "dog", "a_ship"), ANIMALS, option="--config.evals.val.class_map"
    )
    assert "1 of its 3 classes are none of the model's: 'a_ship'" in message
    assert "'cat', 'dog', 'ship'" in message and "--config.evals.val.class_map=FILE" in message
    assert len(refusal(match, [f"x{i}" for i in range(500)], imagenet_names())) < 1000


# One side has no names.


def test_without_names_the_order_counts_if_the_counts_are_equal() -> None:
    found = match(ANIMALS, None, num_classes=3)
    assert found.labels == (0, 1, 2)
    assert "the order counts: 0 = cat, 1 = dog, 2 = ship" in found.how
    assert match(ANIMALS, ("0", "1", "2")).labels == (0, 1, 2)


def test_without_names_other_counts_are_refused() -> None:
    message = refusal(match, ANIMALS, None, num_classes=4)
    assert "3 classes ('cat', 'dog', 'ship')" in message and "4 without names" in message


def test_numbers_are_the_models_numbers() -> None:
    """Folders are sorted as strings: 10 comes before 9."""
    found = match(("10", "9"), imagenet_names())
    assert found.labels == (10, 9) and "numbers" in found.how
    assert match(tuple(sorted(map(str, range(12)))), None, num_classes=12).labels[2] == 10
    assert "none of the model's" in refusal(match, ("1000", "9"), imagenet_names())
    # Where both sides are called so, they are names like any other.
    assert match(("2", "1"), ("1", "2")).labels == (1, 0)
    assert "'0'" in refusal(match, ("0", "1", "2"), ("1", "2", "three"))


def test_a_source_without_classes_has_the_models_numbers() -> None:
    assert match_classes((), ANIMALS, 3, data="x") is None


# Files.


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("map.txt", "# theirs -> ours\na_ship -> ship\n\n  kitten ->cat\npuppy ->\n"),
        ("map.csv", "data,model\na_ship,ship\nkitten,0\npuppy,\n"),
        ("map.json", json.dumps({"a_ship": "ship", "kitten": 0, "puppy": None})),
    ],
)
def test_a_file_names_what_differs(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8-sig")
    found = match(("dog", "a_ship", "puppy", "kitten"), ANIMALS, file=tmp_path / file)
    assert found.labels == (1, 2, -1, 0)
    assert f"matched by name and {tmp_path / file}" in found.how


def test_a_file_may_take_several_classes_for_one(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps({"tabby": "cat", "siamese": "cat"}))
    assert match(("tabby", "siamese"), ANIMALS, file=tmp_path / "map.json").labels == (0, 0)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("map.txt", "a_ship ship\n", "line 1"),
        ("map.txt", "a_shipp -> ship\n", "no class 'a_shipp'; did you mean 'a_ship'?"),
        ("map.txt", "a_ship -> shp\n", "the model has no class 'shp'; did you mean 'ship'?"),
        ("map.txt", "a_ship -> 3\n", "the model has no class '3'"),
        ("map.txt", "a_ship -> ship\na_ship -> dog\n", "'a_ship' has two different classes"),
        ("map.csv", "a_ship,ship,dog\n", "two columns"),
        ("map.json", "[1]", "not an object"),
        ("map.json", '{"a_ship": true}', "not a name, a number or null"),
        ("map.json", "[" * 100_000, "cannot be read as a class map"),
        ("map.yaml", "", "a .txt, .csv or .json file"),
        ("map.txt", None, "cannot be read as a class map (No such file or directory)"),
    ],
)
def test_mistakes_in_a_file(file: str, text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / file).write_text(text)
    error = refusal(match, ("cat", "dog", "a_ship"), ANIMALS, file=tmp_path / file)
    assert error.startswith(str(tmp_path / file)) and message in error


# What the labels become.


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("own_only", [False, True])
def test_logits_and_labels(several: bool, own_only: bool) -> None:
    found = ClassMap((4, -1, 2), 6, own_only=own_only)
    logits = np.arange(12.0).reshape(2, 6)
    labels = np.array([[0, 2], [1, -1]] if several else [0, 1])
    kept, numbers = found.apply(logits, labels)
    if own_only:
        np.testing.assert_array_equal(kept, logits[:, [2, 4]])
        expected = [[1, 0], [-1, -1]] if several else [1, -1]
    else:
        np.testing.assert_array_equal(kept, logits)
        expected = [[4, 2], [-1, -1]] if several else [4, -1]
    np.testing.assert_array_equal(numbers, expected)
