"""`convert` as a user types it, on small models."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from flax import nnx

import vit_jax
from tests.commands.converted import EXACT, convert, write
from tests.small_models import CROP, SMALL, random_params
from vit_jax.__main__ import main
from vit_jax.errors import UserError
from vit_jax.inference.onnx import to_onnx
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import open_weights

OBLONG = dataclasses.replace(SMALL, image_size=(16, 40))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("source") / "w.npz")


@pytest.mark.parametrize("model", [EXACT, OBLONG], ids=["exact", "oblong"])
def test_a_way_through_all_layouts_keeps_every_byte(
    model: ModelConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path / "first.npz", model)
    convert(first, tmp_path / "timm.safetensors", "timm")
    # A hub's directory, made on the way, is a source too.
    hub = tmp_path / "new/hub/model.safetensors"
    convert(tmp_path / "timm.safetensors", hub, "huggingface")
    last = convert(hub.parent, tmp_path / "last.npz", "google")
    assert last.read_bytes() == first.read_bytes()
    assert last.with_suffix(".json").read_bytes() == first.with_suffix(".json").read_bytes()
    assert open_weights(last).model == model
    height, width = model.input_size
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"{last}: ViT-mu/8 at {height}x{width} pixels, layout google"
    names = {"model.safetensors", "model.json", "config.json", "preprocessor_config.json"}
    names.add("README.md")
    assert set(os.listdir(hub.parent)) == names


def test_another_image_size(source: Path, tmp_path: Path) -> None:
    target = convert(source, tmp_path / "w.safetensors", "timm", "--image_size=24x40")
    opened = open_weights(target)
    # The crop keeps its share of 16 / 18.
    crop = dataclasses.replace(CROP, short_side=27)
    assert opened.model == dataclasses.replace(EXACT, image_size=(24, 40), preprocessing=crop)
    grid = random_params(EXACT)["pos_embedding"][0, 1:].reshape(2, 2, -1)
    expected = scipy.ndimage.zoom(grid, (3 / 2, 5 / 2, 1), order=1)
    positions = np.asarray(opened.params["pos_embedding"])[0, 1:]
    np.testing.assert_allclose(positions, expected.reshape(15, -1), atol=1e-6)


def test_home_is_not_a_directory_here(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    convert(source, Path("~/w.npz"), "google")
    assert os.listdir(tmp_path) == ["home"]
    assert (tmp_path / "home/w.npz").read_bytes() == source.read_bytes()


# What cannot be.


def changed(**changes: Any) -> ModelConfig:
    return dataclasses.replace(EXACT, **changes)


@pytest.mark.parametrize(
    ("model", "target", "layout", "message"),
    [
        (changed(pooling="gap"), "w.safetensors", "huggingface", "no pooling=gap"),
        (changed(registers=2), "w.safetensors", "huggingface", "no registers"),
        (changed(positions="none"), "w.safetensors", "huggingface", "no positions=none"),
        (
            changed(representation_size=8),
            "w.safetensors",
            "huggingface",
            "no a representation layer before a head",
        ),
        (
            changed(image_size=(16, 24)),
            "model.safetensors",
            "huggingface",
            "no crop of 16x24 pixels",
        ),
        (changed(pooling="attention"), "w.safetensors", "timm", "no attention pooling"),
        (changed(representation_size=8), "w.safetensors", "timm", "no representation layer"),
        (changed(norm_epsilon=1e-5), "w.safetensors", "timm", "no norm_epsilon=1e-05"),
        (EXACT, "w.safetensors", "google", "the layout google is written as .npz"),
        (EXACT, "w.npz", "timm", "the layout timm is written as .safetensors"),
        (EXACT, "w", "huggingface", "the layout huggingface is written as .safetensors"),
        (EXACT, "w.npz", "stablehlo", "an exported model is written as .stablehlo"),
        (EXACT, "w.npz", "onnx", "an exported model is written as .onnx"),
        (EXACT, "w.tflite", "tflite", "argument --layout: invalid choice: 'tflite'"),
    ],
)
def test_what_a_layout_cannot_express_leaves_nothing_behind(
    model: ModelConfig,
    target: str,
    layout: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write(tmp_path / "source.npz", model)
    before = sorted(os.listdir(tmp_path))
    arguments = [f"--source={source}", f"--target={tmp_path / 'new' / target}"]
    assert main(["convert", *arguments, f"--layout={layout}"]) == 2
    output, error = capsys.readouterr()
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error and output == ""
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("present", "target", "layout"),
    [
        ("w.safetensors", "w.safetensors", "timm"),
        # The description of other weights, which the new one would replace.
        ("w.json", "w.safetensors", "timm"),
        ("w.json", "w.stablehlo", "stablehlo"),
        ("config.json", "model.safetensors", "timm"),
        ("preprocessor_config.json", "model.safetensors", "huggingface"),
    ],
)
def test_nothing_is_replaced(
    present: str,
    target: str,
    layout: str,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / present).write_text("of another")
    arguments = [f"--source={source}", f"--target={tmp_path / target}", f"--layout={layout}"]
    assert main(["convert", *arguments, "--image_size=32"]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / present} exists already; choose another name\n" in error
    assert os.listdir(tmp_path) == [present]
    assert (tmp_path / present).read_text() == "of another"


def test_a_place_that_cannot_be_written(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for name, reason in {"file/w.npz": "", f"{'x' * 260}.npz": "File name too long"}.items():
        arguments = [f"--source={source}", f"--target={tmp_path / name}"]
        assert main(["convert", *arguments, "--layout=google"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: --target={tmp_path / name}: ") and reason in error
        assert error.count("\n") == 1
    assert os.listdir(tmp_path) == ["file"]


def test_a_source_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--source={tmp_path / 'w.npz'}", f"--target={tmp_path / 'new/v.npz'}"]
    assert main(["convert", *arguments, "--layout=google"]) == 2
    assert "w.npz: no such file or directory" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_onnx_without_its_extra(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    arguments = [f"--source={source}", f"--target={tmp_path / 'w.onnx'}", "--layout=onnx"]
    assert main(["convert", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'vit_jax[onnx]'" in line
    assert os.listdir(tmp_path) == []


def test_a_model_that_no_onnx_file_holds() -> None:
    model = nnx.eval_shape(lambda: vit_jax.create_model("ViT-H/14", num_classes=1000))
    with pytest.raises(UserError, match=r"2\.5 GB of parameters.*--layout=stablehlo"):
        to_onnx(model)
