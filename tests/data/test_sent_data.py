"""Data sets that someone sent run no code and open no files but their own."""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow_datasets as tfds

from tests.data.listed import records_of
from vit_jax.data.preparation.prepare import prepare
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.own_splits import split_to_score
from vit_jax.errors import UserError

Feature = dict[str, Any]

MARK = "code_of_the_data_set_has_run"


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The digits' directory, with a module beside it that tells when it is imported."""
    prepare("digits", str(tmp_path / "data"))
    (tmp_path / "sent_module.py").write_text(f"import sys; sys.{MARK} = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(sys, MARK, raising=False)
    monkeypatch.delitem(sys.modules, "sent_module", raising=False)
    return tmp_path / "data/digits/1.0.0"


def change(file: Path, edit: Callable[[Feature], None]) -> None:
    value = json.loads(file.read_text())
    edit(value)
    file.write_text(json.dumps(value))


def features_of(value: Feature) -> Feature:
    features: Feature = value["featuresDict"]["features"]
    return features


def an_extra_feature(value: Feature) -> None:
    features_of(value)["more"] = {"pythonClassName": "sent_module.Feature", "text": {}}


def a_feature_in_a_sequence(value: Feature) -> None:
    inner = {"pythonClassName": "sent_module.Feature", "jsonFeature": {"json": "{}"}}
    features_of(value)["more"] = {
        "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
        "sequence": {"feature": inner, "length": "-1"},
    }


def a_feature_in_old_json(value: Feature) -> None:
    old = {"feature": {"type": "sent_module.Feature", "content": {}}, "length": None}
    features_of(value)["more"] = {
        "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
        "jsonFeature": {"json": json.dumps(old)},
    }


def an_old_form(value: Feature) -> None:
    features = features_of(value)
    content = {name: {"type": "sent_module.Feature", "content": {}} for name in ("more", "image")}
    value.clear()
    value |= {"type": "sent_module.Features", "content": content | features}


@pytest.mark.parametrize(
    "edit", [an_extra_feature, a_feature_in_a_sequence, a_feature_in_old_json, an_old_form]
)
def test_no_module_is_imported_for_a_feature(edit: Callable[[Feature], None], sent: Path) -> None:
    change(sent / "features.json", edit)
    for name in ("digits", "digits:1.0.0"):
        try:
            source = open_source(name, "train", data_dir=str(sent.parents[1]))
            assert len(records_of(source)) == 1437
        except UserError as error:
            assert edit is an_old_form, error
        else:
            assert edit is not an_old_form
        split_to_score(name, str(sent.parents[1]))
        with contextlib.suppress(UserError):
            prepare(name, str(sent.parents[1]))
    assert "sent_module" not in sys.modules and not hasattr(sys, MARK)


def test_a_data_set_without_code_of_its_own_is_read_as_data(sent: Path) -> None:
    """TFDS knows no such name, and takes everything from the files."""
    moved = sent.parents[1] / "sent_data/1.0.0"
    moved.parent.mkdir()
    sent.rename(moved)
    for file in moved.glob("digits-*"):
        file.rename(moved / file.name.replace("digits", "sent_data"))
    change(moved / "dataset_info.json", lambda value: value.update(name="sent_data"))
    change(moved / "features.json", an_extra_feature)
    source = open_source("sent_data", "train", data_dir=str(moved.parents[1]))
    assert len(records_of(source)) == 1437
    assert "sent_module" not in sys.modules


def test_features_of_the_information_are_data_too(sent: Path) -> None:
    features = json.loads((sent / "features.json").read_text())
    an_extra_feature(features)
    change(sent / "dataset_info.json", lambda value: value.update(features=features))
    open_source("digits", "train", data_dir=str(sent.parents[1]))
    assert "sent_module" not in sys.modules


def test_class_names_are_not_taken_from_another_file(sent: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("\n".join(f"secret{i}" for i in range(10)))
    (sent / "label.labels.txt").unlink()
    content = {"names_file": str(tmp_path / "secret.txt"), "num_classes": None, "names": None}

    def edit(value: Feature) -> None:
        features_of(value)["label"] = {
            "pythonClassName": features_of(value)["label"]["pythonClassName"],
            "jsonFeature": {"json": json.dumps(content)},
        }

    change(sent / "features.json", edit)
    try:
        names = open_source("digits", "train", data_dir=str(sent.parents[1])).class_names
    except UserError as error:
        assert "secret" not in str(error)
    else:
        assert not any("secret" in name for name in names)


@pytest.mark.parametrize(
    "edit",
    [
        {"filepathTemplate": "../../../other/{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"},
        {"filepathTemplate": "/etc/passwd"},
        {"name": "../train"},
    ],
)
def test_shards_lie_in_the_directory(edit: Feature, sent: Path) -> None:
    change(sent / "dataset_info.json", lambda value: value["splits"][0].update(edit))
    with pytest.raises(UserError, match="outside of it|cannot be read|not in TFDS syntax|splits"):
        open_source("digits", "train", data_dir=str(sent.parents[1]))


@pytest.mark.parametrize("name", ["huggingface:digits", "kaggle-x:digits", "kaggle:digits/a"])
def test_code_of_a_community_is_not_fetched(name: str, tmp_path: Path) -> None:
    for use in (lambda: prepare(name, str(tmp_path)), lambda: split_to_score(name, str(tmp_path))):
        with pytest.raises(UserError, match="community|no kind"):
            use()
    with pytest.raises(UserError, match="community|no kind"):
        open_source(name, "train", data_dir=str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"featuresDict": 3}', "{}"])
@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_a_damaged_description_is_one_line(file: str, text: str, sent: Path) -> None:
    (sent / file).write_text(text)
    with pytest.raises(UserError) as caught:
        open_source("digits:1.0.0", "train", data_dir=str(sent.parents[1]))
    assert "\n" not in str(caught.value)


def test_tfds_is_left_as_it_was(sent: Path) -> None:
    with pytest.raises(UserError):
        open_source("digits", "no_split", data_dir=str(sent.parents[1]))
    change(sent / "features.json", an_extra_feature)
    with pytest.raises(ValueError, match="Unrecognized FeatureConnector"):
        tfds.builder_from_directory(sent)
    assert hasattr(sys, MARK)  # As TFDS does it.
