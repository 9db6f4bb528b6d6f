"""Checkpoints in several files, as large ones lie on Hugging Face's hub."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from tests.small_models import SMALL, assert_same, random_params, refusal
from vit_jax.weights.files import open_weights, write_weights

NAMES = tuple("abcde")
PARTS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    whole = tmp_path / "model.safetensors"
    write_weights(whole, random_params(SMALL), SMALL, layout="huggingface", class_names=NAMES)
    (tmp_path / "model.json").unlink()
    arrays = load_file(whole)
    whole.unlink()
    places = {name: PARTS[i % 3] for i, name in enumerate(sorted(arrays))}
    for part in PARTS:
        inside = {name: arrays[name] for name, place in places.items() if place == part}
        save_file(inside, tmp_path / part, metadata={"format": "pt"})
    _write_index(tmp_path, {"metadata": {"total_size": 1}, "weight_map": places})
    return tmp_path


def _write_index(folder: Path, index: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _places(folder: Path) -> dict[str, str]:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    places: dict[str, str] = index["weight_map"]
    return places


@pytest.mark.parametrize("name", ["", "model.safetensors.index.json", PARTS[1]])
def test_all_parts_are_read(folder: Path, name: str) -> None:
    weights = open_weights(folder / name)
    assert (weights.layout, weights.class_names) == ("huggingface", NAMES)
    assert weights.model.norm_epsilon == SMALL.norm_epsilon  # from config.json
    assert_same(weights.params, random_params(SMALL))


def test_a_part_that_is_missing_or_another_one(folder: Path) -> None:
    first, second = (folder / part for part in PARTS[:2])
    second.rename(folder / "aside")
    assert str(second) in refusal(open_weights, folder)
    second.write_bytes(first.read_bytes())
    assert PARTS[1] in refusal(open_weights, folder)
    (folder / "model.safetensors.index.json").unlink()
    assert "index.json is missing" in refusal(open_weights, first)


@pytest.mark.parametrize("place", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "x"])
def test_no_other_files_are_opened(folder: Path, place: str) -> None:
    places = _places(folder)
    places[next(iter(places))] = place
    _write_index(folder, {"weight_map": places})
    assert repr(place) in refusal(open_weights, folder)


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": {"a": 3}}])
def test_an_index_of_other_types(folder: Path, index: Any) -> None:
    _write_index(folder, index)
    assert "index.json" in refusal(open_weights, folder)
