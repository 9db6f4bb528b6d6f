"""ImageNetV2, -A, -R and -Sketch, on logits where a plain rule answers otherwise."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation.label_set_cases import folders_of, judged, opener, source_of, write_folders
from tests.small_models import refusal
from vit_jax.evaluation import builtin  # noqa: F401 (registers the kinds)
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.label_sets.classes import read_list
from vit_jax.weights.classes import imagenet_names, imagenet_synsets

SYNSETS = imagenet_synsets()
NAMES = imagenet_names()
A, R = (tuple(read_list(f"imagenet_{name}_synsets.txt").split()) for name in "ar")


def make(kind: str, folder: Path, names: Any = NAMES, **changes: Any) -> Any:
    options = {key: changes.pop(key) for key in ("classes",) if key in changes}
    config = EvalConfig.kinds[kind]("all", **options)
    return config.make(opener(kind, folder, names, **changes))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    names = {"v2": map(str, range(1000)), "val": SYNSETS, "a": A, "r": R}
    return {key: write_folders(root / key, (f"{n}/1.png" for n in names[key])) for key in names}


def one_hot(numbers: Any, value: float = 1.0) -> np.ndarray:
    logits = np.zeros((len(numbers), 1000), np.float32)
    logits[np.arange(len(numbers)), numbers] = value
    return logits


def test_the_lists_are_two_hundred_of_imagenets_classes() -> None:
    # Their ends in timm's own files of indices.
    for own, first, last in ((A, 6, 988), (R, 1, 988)):
        numbers = [SYNSETS.index(synset) for synset in own]
        assert len(set(own)) == 200 and numbers == sorted(numbers)
        assert (numbers[0], numbers[-1]) == (first, last)


def test_folders_called_0_to_999_are_numbers_and_not_positions(folders: dict[str, Path]) -> None:
    each = make("imagenet_v2", folders["v2"])
    numbers = [int(name) for name in folders_of(each)]
    found = judged(each, one_hot(numbers))
    assert found.values["top1"] == 1 and found.values["examples"] == 1000
    # By position in the sorted list, folder 10 would be class 2; few numbers are at their own.
    positions = [sorted(map(str, range(1000))).index(str(number)) for number in numbers]
    assert judged(each, one_hot(positions)).values["top1"] < 0.02
    assert "ImageNetV2, over all 1,000 logits" in found.line


@pytest.mark.parametrize("kind", ["imagenet_v2", "imagenet_sketch"])
def test_folders_called_by_id(kind: str, folders: dict[str, Path]) -> None:
    each = make(kind, folders["val"])
    numbers = [SYNSETS.index(name) for name in folders_of(each)]
    assert judged(each, one_hot(numbers)).values["top1"] == 1


@pytest.mark.parametrize(("kind", "own"), [("imagenet_a", A), ("imagenet_r", R)])
@pytest.mark.parametrize("clean", [False, True])
def test_two_hundred_of_a_thousand_logits(
    kind: str, own: tuple[str, ...], clean: bool, folders: dict[str, Path]
) -> None:
    """A class outside the set is best, the right one second, and another of the set third."""
    folder, name = (folders["val"], f"{kind}_clean") if clean else (folders[kind[-1]], kind)
    outside = next(i for i, synset in enumerate(SYNSETS) if synset not in own)
    each = make(name, folder)
    right = [SYNSETS.index(synset) for synset in folders_of(each)]
    other = [SYNSETS.index(own[(own.index(s) + 1) % 200]) if s in own else 0 for s in SYNSETS]
    logits = one_hot(right, 2) + one_hot([other[number] for number in right], 1)
    logits[:, outside] = 3
    found = judged(each, logits)
    assert (found.values["top1"], found.values["examples"]) == (1, 200)
    assert "over the 200 logits of its classes alone" in found.line
    assert ("validation images" in found.line) == clean
    over_all = judged(make(name, folder, classes="all"), logits)
    assert (over_all.values["top1"], over_all.values["top5"]) == (0, 1)
    assert "over all 1,000 logits" in over_all.line


def test_the_head_may_have_the_classes_in_another_order(folders: dict[str, Path]) -> None:
    order = np.random.default_rng(0).permutation(1000)
    each = make("imagenet_a", folders["a"], [SYNSETS[i] for i in order])
    right = [int(np.flatnonzero(order == SYNSETS.index(s))[0]) for s in folders_of(each)]
    assert judged(each, one_hot(right)).values["top1"] == 1


def test_evaluations_of_one_folder_have_one_source(folders: dict[str, Path]) -> None:
    shared = opener("imagenet_a_clean", folders["val"])
    kinds = ("imagenet_a_clean", "imagenet_r_clean", "classification")
    sources = {id(source_of(EvalConfig.kinds[kind]("all").make(shared))) for kind in kinds}
    assert len(sources) == 1


@pytest.mark.parametrize(
    ("kind", "folder", "changes", "message"),
    [
        ("imagenet_a", "a", {"names": ("cat", "dog"), "num_classes": 2}, r"200 of the 200 classes"),
        ("imagenet_v2", "v2", {"names": (*SYNSETS[:-1], "ghost")}, r"1 of .* \(n15075141\); give"),
        ("imagenet_r", "r", {"names": None}, "nothing names the 1,000 classes of the head"),
        ("imagenet_r", "r", {"names": None, "num_classes": 0}, "has no head"),
        ("imagenet_a", "val", {}, r"has 800 classes that ImageNet-A has not .*imagenet_a_clean"),
        ("imagenet_a", "r", {}, r"no images of \d+ of the 200 classes of ImageNet-A"),
        ("imagenet_sketch", "a", {}, "no images of 800 of the 1,000 classes of ImageNet-Sketch"),
        ("imagenet_a_clean", "r", {}, "no images of"),
        ("imagenet_a", "nowhere", {}, "does not exist"),
        ("imagenet_a", "pets", {}, r"2 of the 2 classes of .* \(beagle_1, sphynx\)"),
        ("imagenet_v2", "twice", {}, r"'01' and '1' .* are the same class of ImageNet \(1\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    kind: str,
    folder: str,
    changes: dict[str, Any],
    message: str,
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    own = {
        "pets": lambda: write_folders(tmp_path / "pets", ("sphynx/1.png", "beagle_1/1.png")),
        "twice": lambda: write_folders(tmp_path / "twice", ("01/1.png", "1/1.png")),
        "nowhere": lambda: tmp_path / "nowhere",
    }
    path = folders[folder] if folder in folders else own[folder]()
    assert re.search(message, refusal(make, kind, path, **changes))


def test_logits_that_are_not_finite_are_no_score(folders: dict[str, Path]) -> None:
    each = make("imagenet_a", folders["a"])
    logits = one_hot([SYNSETS.index(name) for name in folders_of(each)])
    logits[3] = np.nan
    assert "not finite for 1 of the images" in refusal(judged, each, logits)
