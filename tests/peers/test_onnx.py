"""Models as ONNX in ONNX Runtime against `predict`, on photographs of any size."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import vit_jax
from tests.peers.drawn import photograph
from tests.real_processes import run_program
from tests.small_models import random_params
from vit_jax.__main__ import main
from vit_jax.inference.prediction import predict
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import write_weights

EXAMPLE = Path(__file__).parents[2] / "examples/run_exported.py"
CROP = {"resize": "short_side", "short_side": 40, "interpolation": "bicubic", "antialias": True}
MODELS: dict[str, Any] = {
    "ViT": {"name": "ViT-mu/8", "depth": 2, "image_size": (32, 40), "preprocessing": CROP},
    "ViT, other forms": {
        "name": "ViT-mu/8",
        "depth": 2,
        "image_size": 32,
        "pooling": "attention",
        "positions": "sincos2d",
        "registers": 2,
        "representation_size": 8,
        "gelu": "exact",
        "dtype": "bfloat16",
    },
    "axial ViT": {
        "name": "AxialViT-mu/8",
        "depth": 2,
        "image_size": (32, 40),
        "positions": "learned2d",
    },
    "Mixer": {"name": "Mixer-S/16", "depth": 2, "width": 32, "image_size": 32},
    "hybrid": {
        "name": "R50+ViT-B/16",
        "image_size": 32,
        **{"depth": 1, "width": 32, "mlp_dim": 32, "num_heads": 2},
        **{"stages": (1, 1, 1), "width_factor": 0.5},
    },
    "ResNet": {"name": "R50x1", "image_size": 48, "stages": (1, 1), "width_factor": 0.5},
}


def _write(directory: Path, options: Any) -> Path:
    if "preprocessing" in options:
        options = options | {"preprocessing": vit_jax.preprocessing.PreprocessingConfig(**CROP)}
    config = ModelConfig(**options, num_classes=7).completed()
    params = random_params(config)
    params["head"]["kernel"] *= 0.1
    names = tuple("abcdefg")
    write_weights(directory / "w.npz", params, config, class_names=names)
    return directory / "w.npz"


@pytest.mark.parametrize("form", MODELS)
def test_the_program_predicts_what_predict_does(
    form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, target = _write(tmp_path, MODELS[form]), tmp_path / "served.onnx"
    assert not main(["convert", f"--source={source}", f"--target={target}", "--layout=onnx"])
    printed, errors = capfd.readouterr()
    files = [str(tmp_path / f"{number}.png") for number in range(3)]
    for file, size in zip(files, ((150, 100), (60, 120), (48, 48)), strict=True):
        photograph(*size).save(file)

    # What it takes is stated, and `preprocess` gives it.
    stated = json.loads(target.with_suffix(".json").read_text())["input"]
    shape = ", ".join(map(str, stated["shape"]))
    assert f"takes uint8 [{shape}] (NHWC, RGB) from 0 to 255" in printed
    model = vit_jax.load_model(weights=source, dtype="float32")
    images = vit_jax.preprocess(files, model, normalized=False)
    assert images.dtype == stated["dtype"] and list(images.shape[1:]) == stated["shape"][1:]
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type) == (stated["name"], "tensor(uint8)")
    assert taken.shape == stated["shape"]

    found = runpy.run_path(str(EXAMPLE))["probabilities"]
    predictions = list(predict(model, files, top_k=7))
    for batch in (3, 1):
        (logits,) = session.run(["logits"], {"images": images[:batch]})
        assert logits.std() > 0.2
        for row, predicted in zip(found(logits, None), predictions, strict=False):
            expected = np.zeros(7)
            expected[list(predicted.classes)] = predicted.probabilities
            np.testing.assert_allclose(row, expected, rtol=0, atol=1e-4)
    # ONNX Runtime prints a line for each constant that no node reads.
    assert not re.search("warning|initializer", errors + "".join(capfd.readouterr()), re.IGNORECASE)


def test_the_example_serves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = _write(tmp_path, MODELS["ViT"]), tmp_path / "served.onnx"
    assert not main(["convert", f"--source={source}", f"--target={target}", "--layout=onnx"])
    photo = str(tmp_path / "photo.png")
    photograph(150, 100).save(photo)
    capsys.readouterr()
    printed = run_program("tests.programs.without_package", str(EXAMPLE), str(target), photo)
    served = printed.splitlines()
    assert not main(["predict", f"--weights={source}", "--images", photo])
    ours = capsys.readouterr().out.splitlines()
    assert [line.split("%")[-1] for line in served] == [line.split("%")[-1] for line in ours]


def test_a_model_that_jax2onnx_cannot_write_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The zeros around BiT's root."""
    options = {"name": "BiT-R50x1", "image_size": 32, "stages": (1, 1), "width_factor": 0.5}
    source, target = _write(tmp_path, options), tmp_path / "served.onnx"
    capsys.readouterr()
    assert main(["convert", f"--source={source}", f"--target={target}", "--layout=onnx"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: jax2onnx cannot write BiT-R50x1 as ONNX")
    assert "--layout=stablehlo" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.json", "w.npz"]
