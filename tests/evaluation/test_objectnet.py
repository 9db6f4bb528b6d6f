"""ObjectNet's two rules on logits where they disagree, its mappings and its border."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.evaluation.label_set_cases import HEAD, folders_of, judged, opener, write_folders
from tests.evaluation.test_classification import png
from tests.small_models import SMALL, random_params, refusal
from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.transforms import EvalTransform
from vit_jax.data.sources.records import Record
from vit_jax.evaluation.label_sets.objectnet import BORDER, ObjectNetConfig, read_mappings
from vit_jax.inference.passes import Pass
from vit_jax.inference.requests import Request
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.weights.classes import imagenet_names

TENCH, DESK = 0, 526  # Classes of ImageNet, neither of which ObjectNet shares.


def number(name: str) -> int:
    return [names.split(", ")[0] for names in imagenet_names()].index(name)


def test_the_two_mappings_are_of_the_same_classes() -> None:
    """They come from two repositories; ObjectNet's numbers are the order of its sorted labels."""
    known = read_mappings()
    assert len(known.numbers) == len(set(known.numbers.values())) == 313
    assert len(known.imagenet) == 113 and len(known.shared) == 125
    assert {n: known.numbers[f] for f, ids in known.imagenet.items() for n in ids} == known.shared
    assert known.imagenet["chair"] == tuple(
        map(number, ("barber chair", "folding chair", "rocking chair"))
    )
    assert TENCH not in known.shared and DESK not in known.shared


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folders = [*read_mappings().imagenet, "air_freshener"]
    root = tmp_path_factory.mktemp("objectnet")
    write_folders(root / "images", (f"{folder}/1.png" for folder in folders))
    return ObjectNetConfig("all").make(opener("objectnet", root / "images"))


def answer(evaluator: Any, folder: str, *best: int) -> dict[str, float]:
    """The scores of one picture, for which these logits are the best ones in their order."""
    logits = np.zeros((1, 1000), np.float32)
    logits[0, list(best)] = np.arange(len(best), 0, -1)
    label = sorted(set(folders_of(evaluator))).index(folder)
    return judged(evaluator, logits, [label]).values


def test_several_logits_are_right(evaluator: Any) -> None:
    for chair in ("barber chair", "folding chair", "rocking chair"):
        found = answer(evaluator, "chair", number(chair))
        assert (found["top1"], found["top1_rule_b"]) == (1, 1)


def test_a_logit_that_objectnet_does_not_share_is_wrong_by_rule_a_alone(evaluator: Any) -> None:
    found = answer(evaluator, "chair", TENCH, number("folding chair"))
    assert found == {"top1": 0, "top5": 1, "top1_rule_b": 1, "examples": 1}


def test_five_of_all_logits_are_looked_at(evaluator: Any) -> None:
    sixth = answer(evaluator, "chair", TENCH, DESK, 1, 2, 3, number("folding chair"))
    assert (sixth["top5"], sixth["top1_rule_b"]) == (0, 1)
    # Five chairs, none of which is a banana, though that is the next.
    wrong = answer(evaluator, "banana", number("folding chair"), number("banana"))
    assert (wrong["top1"], wrong["top5"], wrong["top1_rule_b"]) == (0, 1, 0)


def test_pictures_of_classes_that_imagenet_lacks_are_not_counted(evaluator: Any) -> None:
    """Nor is a logit without a class of ObjectNet the right one of a folder without."""
    names = sorted(set(folders_of(evaluator)))
    logits = np.zeros((2, 1000), np.float32)
    logits[0, TENCH], logits[1, number("banana")] = 1, 1
    found = judged(evaluator, logits, [names.index("air_freshener"), names.index("banana")])
    assert found.values == {"top1": 1, "top5": 1, "top1_rule_b": 1, "examples": 1}
    assert "(A: over all 1,000 logits)" in found.line and "(B: over the 125 logits" in found.line
    only_others = np.zeros((1, 1000), np.float32)
    label = [names.index("air_freshener")]
    assert "no image of a class" in refusal(judged, evaluator, only_others, label)
    only_others[:] = np.inf
    assert "not finite" in refusal(judged, evaluator, only_others, label)


def test_a_picture_without_a_label_is_not_counted(tmp_path: Path) -> None:
    """Also where all folders are counted, the first of them too."""
    shared = read_mappings().imagenet
    write_folders(tmp_path / "images", (f"{folder}/1.png" for folder in shared))
    only_shared = ObjectNetConfig("all").make(opener("objectnet", tmp_path / "images"))
    logits = np.zeros((2, 1000), np.float32)
    logits[0, number("banana")], logits[1, TENCH] = 1, 1
    found = judged(only_shared, logits, [sorted(shared).index("banana"), -1])
    assert found.values == {"top1": 1, "top5": 1, "top1_rule_b": 1, "examples": 1}


def test_the_picture_is_cut_and_resized_as_its_authors_do(evaluator: Any) -> None:
    request = evaluator.requests["test"]
    assert request.border == BORDER == 2
    assert request.preprocessing.resize == "short_side"
    assert request.preprocessing.short_side is None
    assert HEAD.preprocessing is not None
    assert request.preprocessing.mean == HEAD.preprocessing.mean


def bordered(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture in a red border, and the picture."""
    inner = np.random.default_rng(seed).integers(0, 256, (20, 28, 3), np.uint8)
    outer = np.zeros((24, 32, 3), np.uint8)
    outer[..., 0] = 255
    outer[2:-2, 2:-2] = inner
    return outer, inner


def test_a_border_is_cut_before_an_image_is_resized() -> None:
    outer, inner = bordered(0)
    preprocessing = PreprocessingConfig(resize="short_side")
    cut = EvalTransform((16, 16), preprocessing, border=2)(png(outer))
    np.testing.assert_array_equal(cut, EvalTransform((16, 16), preprocessing)(png(inner)))
    with pytest.raises(ImageError, match="4 x 9 pixels, of which a border of 2 is cut"):
        EvalTransform((16, 16), preprocessing, border=2)(png(np.zeros((9, 4, 3), np.uint8)))


class Pictures(list[Record]):
    name, class_names, max_labels = "pictures", (), None


def test_a_pass_cuts_the_border() -> None:
    pairs = [bordered(seed) for seed in range(3)]
    model = dataclasses.replace(SMALL, preprocessing=PreprocessingConfig(resize="short_side"))
    params, mesh = random_params(model), make_mesh(MeshConfig(), jax.devices()[:1])
    found = []
    for border, column in ((2, 0), (0, 1)):
        source: Any = Pictures(Record(png(pair[column]), -1, "x") for pair in pairs)
        request = Request(source, border=border, rows=lambda batch: {"x": batch["logits"]})
        each = Pass(model, mesh, {"a": request}, batch_size=2, workers=0, on_error="stop")
        with each:
            found.append(each.run(params)["a"])
    np.testing.assert_array_equal(found[0].rows["x"], found[1].rows["x"])
    assert found[0].positions.tolist() == [0, 1, 2]


def test_other_folders_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path / "pets", ("sphynx/1.png", "chair/1.png"))
    config = ObjectNetConfig("all")
    message = refusal(config.make, opener("objectnet", tmp_path / "pets"))
    assert "1 folders that ObjectNet has not (sphynx)" in message
    write_folders(tmp_path / "part", ("banana/1.png", "chair/1.png"))
    message = refusal(config.make, opener("objectnet", tmp_path / "part"))
    assert "no images of 111 of the 113 classes of ObjectNet" in message
