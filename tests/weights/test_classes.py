"""ImageNet's class lists against facts that were written down elsewhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from vit_jax.errors import UserError
from vit_jax.weights.classes import (
    imagenet21k_names,
    imagenet21k_synsets,
    imagenet_names,
    imagenet_synsets,
    read_class_names,
)


@pytest.mark.parametrize(
    ("label", "synset", "words"),
    [  # From the public synset list of ILSVRC-2012.
        (0, "n01440764", "tench, Tinca tinca"),
        (134, "n02012849", "crane"),
        (281, "n02123045", "tabby, tabby cat"),
        (517, "n03126707", "crane"),
        (638, "n03710637", "maillot"),
        (639, "n03710721", "maillot, tank suit"),
        (850, "n04399382", "teddy, teddy bear"),
        (999, "n15075141", "toilet tissue, toilet paper, bathroom tissue"),
    ],
)
def test_a_class_of_imagenet_has_its_id_and_words(label: int, synset: str, words: str) -> None:
    assert imagenet_synsets()[label] == synset
    assert imagenet_names()[label] == words


def test_imagenet_lists_are_whole_and_in_order() -> None:
    assert len(imagenet_synsets()) == len(imagenet_names()) == 1000
    assert list(imagenet_synsets()) == sorted(set(imagenet_synsets()))
    assert {name for name, count in Counter(imagenet_names()).items() if count > 1} == {"crane"}


def test_imagenet21k_lists_are_whole_and_in_order() -> None:
    synsets, names = imagenet21k_synsets(), imagenet21k_names()
    assert len(synsets) == len(names) == 21_843
    assert list(synsets) == sorted(set(synsets))
    assert (synsets[0], names[0]) == ("n00004475", "organism, being")
    assert names[synsets.index("n02123045")] == "tabby, tabby cat"


def test_the_small_list_agrees_with_the_large_one() -> None:
    large = dict(zip(imagenet21k_synsets(), imagenet21k_names(), strict=True))
    missing = [
        synset
        for synset, name in zip(imagenet_synsets(), imagenet_names(), strict=True)
        if large.get(synset) != name
    ]
    assert missing == ["n04399382"]  # Google's list has no teddy bear.


def test_class_names_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeffköter\ncat\n", encoding="utf-8")
    assert read_class_names(path, 2) == ("köter", "cat")
    with pytest.raises(UserError, match=r"2 class names.*3 classes"):
        read_class_names(path, 3)
