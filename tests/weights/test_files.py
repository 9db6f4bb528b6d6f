import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import SMALL, assert_same, random_params, refusal
from vit_jax.schema import to_dict
from vit_jax.version import __version__
from vit_jax.weights.archives import array_writer
from vit_jax.weights.files import open_weights, write_weights
from vit_jax.weights.layouts.google import from_google

DATA = Path(__file__).parents[1] / "parity"
NAMES = ("chat", "żółw", "c", "d", "e")
LAYOUTS = {"google": "w.npz", "timm": "w.safetensors", "huggingface": "w.safetensors"}


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return random_params(SMALL)


def _write(path: Any, params: dict[str, Any], model: Any = SMALL, **options: Any) -> Path:
    write_weights(path, params, model, **{"class_names": NAMES, **options})
    return path


def _error(path: Any, **options: Any) -> str:
    message = refusal(open_weights, path, **options)
    assert str(path) in message
    return message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_is_read(tmp_path: Path, params: dict[str, Any], layout: str) -> None:
    path = _write(tmp_path / LAYOUTS[layout], params, layout=layout)
    assert sorted(os.listdir(tmp_path)) == sorted(["w.json", path.name])
    weights = open_weights(str(path))
    assert_same(weights.params, params)
    assert (weights.path, weights.layout, weights.model) == (path, layout, SMALL)
    assert (weights.class_names, weights.assumed) == (NAMES, {})


def test_what_lies_beside_a_file(tmp_path: Path, params: dict[str, Any]) -> None:
    _write(tmp_path / "w.npz", params, extra={"step": 3, "averaged": False})
    description = json.loads((tmp_path / "w.json").read_text())
    assert len(description.pop("crc32")) == 8
    assert description == {
        "layout": "google",
        "model": to_dict(SMALL),
        "class_names": list(NAMES),
        "vit_jax": __version__,
        "step": 3,
        "averaged": False,
    }


@pytest.mark.parametrize("name", ["weights.npz", "model.safetensors"])
def test_a_directory_stands_for_its_weights(
    tmp_path: Path, params: dict[str, Any], name: str
) -> None:
    layout = "google" if name.endswith("npz") else "timm"
    _write(tmp_path / name, params, layout=layout)
    weights = open_weights(tmp_path)
    assert weights.path == tmp_path / name
    assert_same(weights.params, params)


def test_the_file_is_numpys_and_has_the_released_names(tmp_path: Path) -> None:
    with np.load(DATA / "vit_token.npz") as file:
        flat = {n.removeprefix("params/"): file[n] for n in file.files if n.startswith("params/")}
    _write(tmp_path / "weights.npz", from_google(flat))
    with np.load(tmp_path / "weights.npz") as written:
        assert_same(dict(written), flat)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equal_weights_give_equal_bytes(
    tmp_path: Path, params: dict[str, Any], layout: str
) -> None:
    def reverse(tree: dict[str, Any]) -> dict[str, Any]:
        return {
            k: reverse(tree[k]) if isinstance(tree[k], dict) else tree[k] for k in [*tree][::-1]
        }

    one, two = (tmp_path / f"{name}{Path(LAYOUTS[layout]).suffix}" for name in ("one", "two"))
    _write(one, params, layout=layout)
    fortran = reverse(params)
    fortran["head"] = {k: jnp.asarray(np.asfortranarray(v)) for k, v in params["head"].items()}
    _write(two, fortran, layout=layout)
    assert one.read_bytes() == two.read_bytes()
    assert one.with_suffix(".json").read_bytes() == two.with_suffix(".json").read_bytes()
    if layout == "google":
        with zipfile.ZipFile(one) as archive:
            assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}


def test_dots_in_a_name_stay(tmp_path: Path, params: dict[str, Any]) -> None:
    path = _write(tmp_path / "B_16-lr_0.001-res_224.npz", params)
    assert (tmp_path / "B_16-lr_0.001-res_224.json").exists()
    assert open_weights(path).class_names == NAMES


@pytest.mark.parametrize(
    ("name", "layout", "ending"),
    [
        ("weights.json", "google", ".npz"),
        ("weights.safetensors", "google", ".npz"),
        ("weights.npz", "timm", ".safetensors"),
        ("weights.bin", "huggingface", ".safetensors"),
    ],
)
def test_each_layout_has_one_ending(
    tmp_path: Path, params: dict[str, Any], name: str, layout: str, ending: str
) -> None:
    message = refusal(write_weights, tmp_path / name, params, SMALL, layout=layout)
    assert f"{name}: the layout {layout} is written as {ending}" in message
    assert os.listdir(tmp_path) == []


def test_a_dtype_that_npz_would_lose_is_not_written(tmp_path: Path) -> None:
    params = {"cls": jnp.zeros((1, 1, 2), jnp.bfloat16)}
    with pytest.raises(TypeError, match="cls"):
        write_weights(tmp_path / "weights.npz", params, SMALL)
    assert os.listdir(tmp_path) == []


def test_a_head_that_is_larger_than_its_data_has_no_names(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    path = _write(tmp_path / "w.npz", params, class_names=("a", "b", "c"))
    assert open_weights(path).class_names is None


# Files that are missing or hold something else.


def test_missing_file(tmp_path: Path) -> None:
    assert "No such file" in _error(tmp_path / "absent.npz")


def test_a_run_that_has_not_ended(tmp_path: Path) -> None:
    assert "a directory without weights.npz or model.safetensors" in _error(tmp_path)
    for name in ("config.json", "lock"):
        (tmp_path / name).write_text("{}")
    message = _error(tmp_path)
    assert "has not ended" in message and "same train command" in message


def test_a_runs_config_is_not_replaced_by_a_hubs(tmp_path: Path, params: dict[str, Any]) -> None:
    for name in ("config.json", "lock"):
        (tmp_path / name).write_text("{}")
    message = refusal(_write, tmp_path / "model.safetensors", params, layout="timm")
    assert "would replace the run's" in message
    assert (tmp_path / "config.json").read_text() == "{}"
    _write(tmp_path / "exported.safetensors", params, layout="timm")


@pytest.mark.parametrize("name", ["other.npz", "other.safetensors"])
def test_names_of_another_architecture_come_with_the_path(tmp_path: Path, name: str) -> None:
    arrays = {f"layer1.{i}.conv1.weight": np.zeros((4, 3, 1, 1), np.float32) for i in range(3)}
    with open(tmp_path / name, "wb") as file:
        array_writer(tmp_path / name, arrays)(file)
    message = _error(tmp_path / name)
    assert all(f"{name} (4, 3, 1, 1)" in message for name in arrays)


# Whole or not at all.


def test_a_write_that_fails_leaves_the_old_files(
    tmp_path: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "weights.npz", params)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    other = params | {"cls": params["cls"] + 1}

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    for module, function in ((os, "replace"), (os, "fsync"), (np, "savez")):
        with monkeypatch.context() as patch:
            patch.setattr(module, function, fail)
            with pytest.raises(OSError, match="disk full"):
                _write(path, other, extra={"step": 4})
        assert {n: (tmp_path / n).read_bytes() for n in os.listdir(tmp_path)} == before


@pytest.mark.parametrize(
    ("name", "layout", "order"),
    [
        ("weights.npz", "google", ["weights.json"]),
        ("w.safetensors", "timm", ["w.json"]),
        ("model.safetensors", "timm", ["model.json", "config.json"]),
        (
            "model.safetensors",
            "huggingface",
            ["model.json", "config.json", "preprocessor_config.json"],
        ),
    ],
)
def test_what_describes_weights_is_there_before_them(
    tmp_path: Path,
    params: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    layout: str,
    order: list[str],
) -> None:
    seen = []

    def replace(source: Path, destination: Path, original: Any = os.replace) -> None:
        seen.append(Path(destination).name)
        assert Path(source).parent == tmp_path
        if Path(destination).suffix != ".json":
            for description in order:
                assert json.loads((tmp_path / description).read_text())
        original(source, destination)

    monkeypatch.setattr(os, "replace", replace)
    _write(tmp_path / name, params, layout=layout)
    assert seen == [*order, name]
