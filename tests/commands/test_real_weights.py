"""A real trained model, DeiT-Ti/16, on a photograph of two cats."""

import csv
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import vit_jax
from tests.commands.scored_photos import score
from tests.small_models import assert_same
from vit_jax.__main__ import main
from vit_jax.models.functional import apply_model, model_params
from vit_jax.weights.classes import imagenet_names, imagenet_synsets

SHARED = Path(os.environ.get("VIT_JAX_SHARED", Path(__file__).parents[3] / "shared"))
DATA = SHARED / "data"
WEIGHTS, PHOTOGRAPH = DATA / "deit_tiny_patch16_224.safetensors", DATA / "cats.png"

needs_data = pytest.mark.skipif(
    not (WEIGHTS.exists() and PHOTOGRAPH.exists()),
    reason=f"needs {WEIGHTS.name} and {PHOTOGRAPH.name}, which are not part of the package",
)

TABBY, TIGER_CAT, EGYPTIAN_CAT = 281, 282, 285


def predict(weights: Path, output: Path, *flags: str) -> list[tuple[int, str]]:
    """The best classes and their names."""
    command = ["predict", f"--weights={weights}", f"--images={PHOTOGRAPH}", f"--output={output}"]
    assert main([*command, *flags]) == 0
    with open(output, encoding="utf-8", newline="") as file:
        return [(int(row["class"]), row["name"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The weights as they come, then in Google's layout, Hugging Face's and back in timm's."""
    folder = tmp_path_factory.mktemp("deit")
    files = [WEIGHTS]
    for name, layout in {
        "google.npz": "google",
        "huggingface/model.safetensors": "huggingface",
        "timm/model.safetensors": "timm",
    }.items():
        command = ["convert", f"--source={files[-1]}", f"--target={folder / name}"]
        assert main([*command, f"--layout={layout}"]) == 0
        files.append(folder / name)
    return files


@needs_data
def test_it_sees_the_cats(tmp_path: Path) -> None:
    best = predict(WEIGHTS, tmp_path / "a.csv")
    assert [label for label, _ in best[:3]] == [TABBY, TIGER_CAT, EGYPTIAN_CAT]
    assert best[0][1] == "tabby, tabby cat"


@needs_data
def test_every_layout_gives_the_same_logits(layouts: list[Path]) -> None:
    models = [vit_jax.load_model(weights=file) for file in layouts]
    images = [vit_jax.preprocess([PHOTOGRAPH], model) for model in models]
    apply = jax.jit(apply_model(models[0].config))
    first, *others = (
        np.asarray(apply(model_params(model), x)[0])
        for model, x in zip(models, images, strict=True)
    )
    assert list(np.argsort(-first)[:3]) == [TABBY, TIGER_CAT, EGYPTIAN_CAT]
    for model, logits in zip(models[1:], others, strict=True):
        # What the function depends on besides, as the compiled one above does not show it.
        assert (model.config, model.class_names) == (models[0].config, models[0].class_names)
        np.testing.assert_allclose(logits, first, rtol=0, atol=1e-4)
        assert list(np.argsort(-logits)[:5]) == list(np.argsort(-first)[:5])
    assert_same(model_params(models[-1]), model_params(models[0]))


@needs_data
def test_it_sees_them_in_a_converted_file(layouts: list[Path], tmp_path: Path) -> None:
    best = predict(layouts[2], tmp_path / "a.csv", "--top_k=3")
    assert [label for label, _ in best] == [TABBY, TIGER_CAT, EGYPTIAN_CAT]


# By height and width.
@needs_data
@pytest.mark.parametrize("image_size", ["384", "320x480"])
def test_it_sees_them_at_another_size(image_size: str, tmp_path: Path) -> None:
    best = predict(WEIGHTS, tmp_path / "a.csv", f"--image_size={image_size}")
    assert best[0] == (TABBY, "tabby, tabby cat")


def test_the_classes_of_imagenet() -> None:
    names = imagenet_names()
    assert len(names) == len(set(names)) + 1 == 1000  # The bird and the machine are both cranes.
    assert names[0].startswith("tench") and names[999].startswith("toilet tissue")
    assert names[TABBY] == "tabby, tabby cat"
    assert names[TIGER_CAT] == "tiger cat" and names[EGYPTIAN_CAT] == "Egyptian cat"
    assert all(name == name.strip() != "" for name in names)


@needs_data
@pytest.mark.parametrize(
    ("folders", "top1"),
    [
        # Ids in another order than the model's, and names: the photograph is a tabby to it.
        (("n02124075", "n02123045"), 0.5),
        (("Egyptian cat", "tabby", "lynx, catamount"), 1 / 3),
        (("tiger_cat",), 0.0),
        (("n02123045-tabby_cat",), 1.0),
    ],
)
def test_real_weights_on_folders_of_imagenets_classes(
    folders: Any, top1: Any, tmp_path: Path
) -> None:
    for name in folders:
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "cats.png").symlink_to(PHOTOGRAPH)
    found = score(tmp_path / "a.json", WEIGHTS, tmp_path / "photos")
    assert (found["top1"], found["examples"]) == (pytest.approx(top1), len(folders))
    # What `predict` says of the same image.
    output = tmp_path / "p.csv"
    command = ["predict", f"--weights={WEIGHTS}", f"--images={PHOTOGRAPH}", f"--output={output}"]
    assert main([*command, "--top_k=1"]) == 0
    (row,) = csv.DictReader(output.read_text().splitlines())
    label = int(row["class"])
    same = {imagenet_synsets()[label], *imagenet_names()[label].split(", ")}
    hits = [name in same or name.split("-")[0] in same for name in folders]
    assert np.mean(hits) == pytest.approx(top1)
