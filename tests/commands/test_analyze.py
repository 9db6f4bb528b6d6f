"""`analyze`: a picture and its numbers, of a small model and of a real one."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.small_models import random_params, small_vit
from vit_jax.__main__ import main
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import write_weights

SHARED = Path(os.environ.get("VIT_JAX_SHARED", Path(__file__).parents[3] / "shared"))
DEIT, CATS = SHARED / "data/deit_tiny_patch16_224.safetensors", SHARED / "data/cats.png"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a ViT-B/8 in small on 16x16 pixels."""
    file = tmp_path_factory.mktemp("small") / "small.npz"
    write_weights(file, random_params(small_vit()), small_vit())
    return file


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("a.png", "c.png"):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / name)
    (folder / "b.png").write_bytes(b"no image")
    return folder


def analyze(name: str, output: Path, *flags: str) -> dict[str, Any]:
    """The numbers that are written beside the picture."""
    assert main(["analyze", name, f"--output={output}", *flags]) == 0
    picture = output.read_bytes()
    assert picture.startswith(b"\x89PNG" if output.suffix == ".png" else b"<?xml")
    numbers: dict[str, Any] = json.loads(output.with_suffix(".json").read_text())
    assert numbers["analysis"] == name
    return numbers


def independent(model: Any, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rollout of the class token and distances [depth, heads], in NumPy from captured weights."""
    _, inside = model(pixels[None], capture=("attention",))
    attention = np.asarray(inside["attention"], np.float64)[:, 0]
    rows, columns = model.config.grid
    total = np.eye(attention.shape[-1])
    for block in attention:
        total = 0.5 * (block.mean(axis=0) + np.eye(len(total))) @ total
    seen = total[0, 1:].reshape(rows, columns)
    distances = np.zeros(attention.shape[:2])
    for asked in range(rows * columns):
        for key in range(rows * columns):
            apart = np.hypot(asked // columns - key // columns, asked % columns - key % columns)
            distances += attention[:, :, 1 + asked, 1 + key] * apart * model.config.patch_size
    return seen / seen.max(), distances / (rows * columns)


def test_attention_of_a_small_model(small: Path, images: Path, tmp_path: Path) -> None:
    flags = (f"--weights={small}", f"--images={images}")
    seen = analyze("rollout", tmp_path / "rollout.png", *flags)
    found = analyze("distance", tmp_path / "distance.svg", *flags)
    model = vit_jax.load_model(weights=str(small))
    files = [images / "a.png", images / "c.png"]
    expected = [independent(model, each) for each in vit_jax.preprocess(files, model)]
    assert [each["image"] for each in seen["images"]] == [str(file) for file in files]
    maps = [each["map"] for each in seen["images"]]
    np.testing.assert_allclose(maps, [each[0] for each in expected], atol=2e-5)
    assert (found["unit"], found["images"], found["image_size"]) == ("pixels", 2, [16, 16])
    mean = np.mean([each[1] for each in expected], axis=0)
    np.testing.assert_allclose(found["blocks"], mean, atol=2e-5)


@pytest.mark.skipif(not (DEIT.exists() and CATS.exists()), reason="needs DeiT-Ti and cats.png")
def test_attention_of_a_real_model(tmp_path: Path) -> None:
    flags = (f"--weights={DEIT}", f"--images={CATS}")
    (seen,) = analyze("rollout", tmp_path / "rollout.png", *flags)["images"]
    found = analyze("distance", tmp_path / "distance.png", *flags)
    model = vit_jax.load_model(weights=str(DEIT))
    (pixels,) = vit_jax.preprocess([CATS], model)
    shares, distances = independent(model, pixels)
    np.testing.assert_allclose(seen["map"], shares, atol=1e-4)
    np.testing.assert_allclose(found["blocks"], distances, rtol=1e-4)


def test_parameters_of_a_small_model(small: Path, tmp_path: Path) -> None:
    flag = f"--weights={small}"
    filters = analyze("filters", tmp_path / "filters.png", flag)
    assert np.shape(filters["filters"]) == (16, 8, 8, 3)  # No more than the model is wide.
    assert sum(filters["explained"]) == pytest.approx(1, abs=1e-3)
    positions = analyze("positions", tmp_path / "positions.png", flag)
    assert np.shape(positions["similarity"]) == (2, 2, 2, 2)
    diagonal = np.einsum("rcrc->rc", positions["similarity"])
    np.testing.assert_allclose(diagonal, 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["rolout", "--output=a.png"], "no analysis 'rolout'; name one of rollout, distance"),
        (["rollout", "--output=a.png"], "rollout looks at images: add --images="),
        (["filters", "--output=a.png", "--images=."], "--images would be ignored"),
        (["filters", "--output=a.pdf"], "name a .png or an .svg file"),
        (["filters", "--output=missing/a.png"], "--output=missing/a.png"),
        (["distance", "--output=a.png", "--images", "b.png"], "none of 1 images can be read"),
        (["rollout", "--output=a.png", "--images", *["b.png"] * 129], "129 images do not fit"),
    ],
)
def test_mistakes(
    flags: list[str],
    message: str,
    small: Path,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(images)
    assert main(["analyze", *flags, f"--weights={small}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (images / "a.png.json").exists() and not (images / "a.json").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("distance", "has no attention"),
        ("positions", "adds no position embeddings"),
    ],
)
def test_a_mixer_has_neither(
    name: str, message: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = {"depth": 1, "width": 16, "mlp_dim": 16, "token_mlp_dim": 8}
    config = ModelConfig(name="Mixer-B/8", image_size=16, num_classes=5, **size).completed()
    weights = tmp_path / "mixer.npz"
    write_weights(weights, random_params(config), config)
    look = [f"--images={images}"] if name == "distance" else []
    command = ["analyze", name, f"--weights={weights}", f"--output={tmp_path / 'a.png'}", *look]
    assert main(command) == 2
    assert message in capsys.readouterr().err
