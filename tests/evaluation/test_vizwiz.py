"""VizWiz-Classification: predictions for its server, and scores where labels are given."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation.label_set_cases import judged, opener, write_folders
from tests.small_models import refusal
from vit_jax.evaluation.label_sets.vizwiz import VizWizConfig
from vit_jax.weights.classes import imagenet_synsets

IMAGES = [f"VizWiz_val_{i:08}.jpg" for i in range(4)]
LION, DESK, TENCH = 291, 526, 0
SYNSETS = imagenet_synsets()


@pytest.fixture
def annotations(tmp_path: Path) -> str:
    categories = [{"id": i, "wordnet_id": SYNSETS[i]} for i in (DESK, LION)]
    (tmp_path / "annotations.json").write_text(
        json.dumps({"images": IMAGES, "categories": categories})
    )
    write_folders(tmp_path / "images", [*IMAGES, "VizWiz_val_other.jpg"])
    return str(tmp_path / "annotations.json")


def make(root: Path, **options: Any) -> Any:
    return VizWizConfig("all", **options).make(opener("vizwiz", root / "images"))


def drawn() -> np.ndarray:
    """Best of all is a class of another kind; of the two, the lion wins in images 0 and 2."""
    logits = np.zeros((4, 1000), np.float32)
    logits[:, TENCH] = 3
    logits[[0, 2], LION] = 2
    logits[[1, 3], DESK] = 2
    return logits


def test_it_writes_the_file_for_the_server(tmp_path: Path, annotations: str) -> None:
    each = make(tmp_path, annotations=annotations, submission=str(tmp_path / "out.json"))
    found = judged(each, drawn(), [-1] * 4)
    assert json.loads((tmp_path / "out.json").read_text()) == dict(
        zip(IMAGES, [LION, DESK, LION, DESK], strict=True)
    )
    assert found.values == {"examples": 4} and each.score_names == ("examples",)
    assert f"predictions in {tmp_path / 'out.json'} on 4 examples" in found.line
    preprocessing = each.requests["test"].preprocessing
    # 256 to 224 pixels at the model's own side: 16 / (224 / 256), rounded down.
    assert (preprocessing.resize, preprocessing.short_side) == ("short_side", 18)


def test_any_of_the_labels_is_right_and_flaws_make_columns(
    tmp_path: Path, annotations: str
) -> None:
    labels = {
        IMAGES[0]: {"labels": [LION, DESK], "flaws": []},
        IMAGES[1]: {"labels": [LION], "flaws": ["blur"]},
        IMAGES[2]: {"labels": [LION], "flaws": ["blur", "dark"]},
        IMAGES[3]: [TENCH],
    }
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    each = make(tmp_path, annotations=annotations, labels=str(tmp_path / "labels.json"))
    values = judged(each, drawn(), [-1] * 4).values
    assert values == {
        **{"top1": 2 / 4, "top1/clean": 1 / 2, "top1/corrupted": 1 / 2},
        **{"top1/blur": 1 / 2, "top1/dark": 1, "examples": 4},
    }
    assert set(each.score_names) == values.keys()
    assert "not finite" in refusal(judged, each, drawn() * np.nan, [-1] * 4)


def test_what_is_missing_is_named(tmp_path: Path, annotations: str) -> None:
    out = str(tmp_path / "out.json")
    assert "give --annotations=annotations.json" in refusal(make, tmp_path)
    assert "labels are not public: give --submission=FILE" in refusal(
        make, tmp_path, annotations=annotations
    )
    config = VizWizConfig("test[:10%]", annotations=annotations, submission=out)
    message = refusal(config.make, opener("vizwiz", tmp_path / "images"))
    assert "--split=test[:10%] would be ignored" in message
    nowhere = str(tmp_path / "none" / "out.json")
    assert "in a folder that exists" in refusal(
        make, tmp_path, annotations=annotations, submission=nowhere
    )
    (tmp_path / "images" / IMAGES[1]).unlink()
    message = refusal(make, tmp_path, annotations=annotations, submission=out)
    assert f"lacks 1 of the 4 images that the annotations list ({IMAGES[1]})" in message
    assert "No such file" in refusal(
        make, tmp_path / "none", annotations=annotations, submission=out
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({IMAGES[0]: [1]}, "has labels of 1 images, which are not the 4 of the annotations"),
        ([[1]] * 4, "has labels of 0 images"),
        (dict.fromkeys(IMAGES, 3), "an entry must be a list of classes"),
        (dict.fromkeys(IMAGES, "291"), "an entry must be a list of classes"),
        ({name: {"labels": [1], "flaws": "blur"} for name in IMAGES}, "an entry must be a list"),
        ({name: [float("inf")] for name in IMAGES}, "an entry must be a list of classes"),
    ],
)
def test_other_labels_are_refused(
    labels: Any, message: str, tmp_path: Path, annotations: str
) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    assert message in refusal(
        make, tmp_path, annotations=annotations, labels=str(tmp_path / "labels.json")
    )


def test_other_annotations_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path / "images", IMAGES)
    file = tmp_path / "annotations.json"
    for content, message in {
        "{": "cannot be read as VizWiz's annotations",
        "[]": "lists no images and categories",
        '{"images": ["a.jpg"], "categories": [{"id": 1}]}': "lists no images and categories",
    }.items():
        file.write_text(content)
        assert message in refusal(make, tmp_path, annotations=str(file), submission="out.json")
