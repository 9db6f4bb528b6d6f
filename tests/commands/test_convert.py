"""`convert` as a user types it, on small models."""

import ast
import dataclasses
import io
import json
import os
import runpy
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import scipy.ndimage
from flax import nnx
from jax import export
from PIL import Image

import vit_jax
from tests.real_processes import run_program
from tests.small_models import SMALL, random_params
from vit_jax.__main__ import main
from vit_jax.data.images.transforms import EvalTransform
from vit_jax.errors import UserError
from vit_jax.inference.image_code import image_code
from vit_jax.inference.onnx import to_onnx
from vit_jax.models.config import ModelConfig
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.schema import to_dict
from vit_jax.weights.files import open_weights, write_weights

EXAMPLE = Path(__file__).parents[2] / "examples/run_exported.py"
NAMES = ("ant", "bee", "cat", "dog", "élan")
CROP = PreprocessingConfig(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    resize="short_side",
    short_side=18,
    interpolation="bicubic",
    antialias=True,
)
EXACT = dataclasses.replace(SMALL, gelu="exact", norm_epsilon=1e-12, preprocessing=CROP)
OBLONG = dataclasses.replace(SMALL, image_size=(16, 40))


def write(path: Path, model: ModelConfig = EXACT, **options: Any) -> Path:
    write_weights(path, random_params(model), model, class_names=NAMES, **options)
    return path


def convert(source: Path, target: Path, layout: str, *flags: str) -> Path:
    command = ["convert", f"--source={source}", f"--target={target}", f"--layout={layout}"]
    assert main([*command, *flags]) == 0
    return target


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


# As a program.


@pytest.fixture(scope="module")
def program(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(source, tmp_path_factory.mktemp("served") / "w.stablehlo", "stablehlo")


def test_the_program_is_the_model(program: Path, source: Path) -> None:
    exported = export.deserialize(bytearray(program.read_bytes()))
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    # Images of the model's size, so that nothing is resized.
    preprocessing = dataclasses.replace(CROP, short_side=None)
    model = vit_jax.load_model(weights=source, preprocessing=preprocessing)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    logits = np.asarray(jax.jit(lambda x: model(x))(vit_jax.preprocess(list(images), model)))
    assert np.abs(logits).max() > 1
    for batch in (3, 1):
        found = exported.call(images[:batch])
        assert (found.shape, found.dtype) == ((batch, 5), np.float32)
        np.testing.assert_allclose(found, logits[:batch], rtol=1e-5, atol=1e-5)


def test_the_program_has_its_description(program: Path) -> None:
    description = json.loads(program.with_suffix(".json").read_text())
    assert len(description.pop("crc32")) == 8
    assert description == {
        "layout": "stablehlo",
        "model": to_dict(EXACT),
        "class_names": list(NAMES),
        "vit_jax": vit_jax.__version__,
        "loss": None,
        "input": {
            "name": "images",
            "dtype": "uint8",
            "range": [0, 255],
            "layout": "NHWC",
            "channels": "RGB",
            "shape": ["batch", 16, 16, 3],
        },
    }
    assert set(os.listdir(program.parent)) == {"w.stablehlo", "w.json", "w.images.zip"}


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_example_serves_it_without_this_package(
    loss: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Weights without a word on preprocessing: squashed, so that this size is left as it is.
    weights = write(tmp_path / "w.npz", SMALL, extra={"loss": loss})
    program = convert(weights, tmp_path / "s.stablehlo", "stablehlo")
    broken = str(tmp_path / "broken.png")
    Path(broken).write_bytes(b"\x89PNG\r\n\x1a\n")
    files = [str(tmp_path / f"{name}.png") for name in "ab"]
    rng = np.random.default_rng(0)
    for file in files:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
    printed = run_program(
        "tests.programs.without_package", str(EXAMPLE), str(program), broken, *files
    )
    assert printed.startswith(f"{broken}\n  cannot read the image")
    printed = printed.partition("\n")[2].partition("\n")[2]
    capsys.readouterr()
    assert main(["predict", f"--weights={tmp_path / 'w.npz'}", "--images", *files]) == 0
    ours, served = capsys.readouterr().out.splitlines(), printed.splitlines()
    assert len(ours) == len(served) == 2 * (1 + len(NAMES))
    for our, their in zip(ours, served, strict=True):
        # Shares may round otherwise in their last digit.
        assert our.split("%")[-1] == their.split("%")[-1]
        if "%" in our:
            shares = [float(line.split("%")[0]) for line in (our, their)]
            assert shares[0] == pytest.approx(shares[1], abs=0.011)


# In floating point some of these sides times new / old are a hair below the new one.
@pytest.mark.parametrize("side", [52, 55, 107, 400])
def test_the_examples_images_are_those_of_evaluation(
    side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code.zip").write_bytes(image_code())
    monkeypatch.syspath_prepend(str(tmp_path / "code.zip"))
    prepare = runpy.run_path(str(EXAMPLE))["prepare"]
    y, x = np.mgrid[:side, : side + 30]
    pixels = np.stack([y % 256, x % 256, (x + y) % 256], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    squash = PreprocessingConfig(antialias=True)
    google = PreprocessingConfig()
    whole = dataclasses.replace(CROP, short_side=None)
    cropped = dataclasses.replace(CROP, short_side=64)
    for size in (56, (40, 56)):
        for preprocessing in (squash, google, whole, cropped):
            config = dataclasses.replace(SMALL, image_size=size, preprocessing=preprocessing)
            found = prepare(str(tmp_path / "a.png"), to_dict(config))
            expected = EvalTransform(config.input_size, preprocessing)(data)
            np.testing.assert_array_equal(found, expected)


def _upside_down(image: Image.Image, file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file, exif=exif)


def _sixteen_bits(image: Image.Image, file: Path) -> None:
    grey = np.asarray(image.convert("L")).astype(np.uint16)
    Image.fromarray(257 * grey).save(file)


FORMATS = {
    "photo.jpg": lambda image, file: image.save(file, quality=90),
    "turned.jpg": _upside_down,
    "grey.png": lambda image, file: image.convert("L").save(file),
    "deep.png": _sixteen_bits,
    "deep.tiff": _sixteen_bits,
    "palette.gif": lambda image, file: image.convert("P").save(file),
    "palette.png": lambda image, file: image.convert("P").save(file, transparency=0),
    "alpha.png": lambda image, file: image.convert("RGBA").save(file),
    "alpha.webp": lambda image, file: image.convert("RGBA").save(file, lossless=True),
    "bilevel.tiff": lambda image, file: image.convert("1").save(file),
    "inks.jpg": lambda image, file: image.convert("CMYK").save(file),
    "plain.bmp": lambda image, file: image.save(file),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_examples_pixels_of_each_format(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code.zip").write_bytes(image_code())
    monkeypatch.syspath_prepend(str(tmp_path / "code.zip"))
    prepare = runpy.run_path(str(EXAMPLE))["prepare"]
    y, x = np.mgrid[:37, :50]
    pixels = np.stack([5 * x, 6 * y, 120 + x + y], axis=-1).astype(np.uint8)
    FORMATS[name](Image.fromarray(pixels), tmp_path / name)
    for preprocessing in (PreprocessingConfig(), dataclasses.replace(CROP, short_side=30)):
        config = dataclasses.replace(SMALL, image_size=(24, 28), preprocessing=preprocessing)
        found = prepare(str(tmp_path / name), to_dict(config))
        expected = EvalTransform((24, 28), preprocessing)((tmp_path / name).read_bytes())
        np.testing.assert_array_equal(found, expected)
        assert np.asarray(found).std() > 20


def test_the_code_for_images_needs_nothing_else() -> None:
    with zipfile.ZipFile(io.BytesIO(image_code())) as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist()}
    assert image_code() == image_code()
    modules = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for source in sources.values()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert modules <= {"PIL", "numpy", "served_images", *sys.stdlib_module_names}
    assert {"served_images/decoding.py", "served_images/bilinear.py"} <= sources.keys()


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
