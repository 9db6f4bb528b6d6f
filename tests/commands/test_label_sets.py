"""`evaluate` on known test sets: one pass, lines that say the rule, and pictures of scores."""

import dataclasses
import hashlib
import io
import json
import logging
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.commands.scored_photos import draw
from tests.small_models import SMALL, random_params
from vit_jax.__main__ import main
from vit_jax.data.images.decoding import decode
from vit_jax.evaluation import picture
from vit_jax.evaluation.evaluator import Scores
from vit_jax.evaluation.label_sets import real
from vit_jax.evaluation.label_sets.classes import read_list
from vit_jax.evaluation.picture import as_picture, panels
from vit_jax.evaluation.table import Row
from vit_jax.inference.passes import Pass
from vit_jax.weights.classes import imagenet_names, imagenet_synsets
from vit_jax.weights.files import write_weights

SYNSETS = imagenet_synsets()
DRAWN = 25


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.npz"
    model = dataclasses.replace(SMALL, num_classes=1000)
    write_weights(path, random_params(model), model, class_names=imagenet_names())
    return path


@pytest.fixture(scope="module")
def best(weights: Path) -> np.ndarray:
    """The logits of each drawn picture."""
    model = vit_jax.load_model(weights=weights)
    pictures = []
    for seed in range(DRAWN):
        file = io.BytesIO()
        Image.fromarray(draw(seed)).save(file, "PNG")
        pictures.append(decode(file.getvalue()))
    return np.asarray(model(vit_jax.preprocess(pictures, model)))


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory, best: np.ndarray) -> Path:
    """Image n has class n - 1, or for the first 25 the class that the model sees in picture n."""
    root = tmp_path_factory.mktemp("imagenet")
    for seed in range(DRAWN):
        Image.fromarray(draw(seed)).save(root / f"{seed}.png")
    for number in range(1000):
        name = SYNSETS[number]
        (root / "val" / name).mkdir(parents=True)
        file = root / "val" / name / f"ILSVRC2012_val_{number + 1:08}.JPEG"
        file.symlink_to(root / f"{number % DRAWN}.png")
    return root / "val"


def evaluate(*flags: str, output: Path) -> list[dict[str, Any]]:
    assert main(["evaluate", *flags, f"--output={output}"]) == 0
    return json.loads(output.read_text())


def test_sets_over_the_same_pictures_share_one_pass(
    weights: Path,
    val: Path,
    best: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Labels of ReaL are what the model sees first in every third image, and none for the rest."""
    seen = best.argmax(axis=1)
    lists = [[int(seen[n % DRAWN]), 5] if n % 3 == 0 else [] for n in range(1000)]
    content = json.dumps(lists + [[]] * 49_000).encode()
    (tmp_path / "real.json").write_bytes(content)
    monkeypatch.setattr(real, "SHA256", hashlib.sha256(content).hexdigest())
    runs: list[Pass[Any]] = []
    run = Pass.run

    def counted(each: Pass[Any], *arguments: Any, **options: Any) -> Any:
        runs.append(each)
        return run(each, *arguments, **options)

    monkeypatch.setattr(Pass, "run", counted)
    kinds = ["classification", "imagenet_real", "imagenet_a_clean", "imagenet_r_clean"]
    flags = [f"--weights={weights}", f"--dataset={val}", f"--evaluator={','.join(kinds)}"]
    with caplog.at_level(logging.INFO):
        labels = f"--evaluator.labels={tmp_path / 'real.json'}"
        rows = evaluate(*flags, labels, output=tmp_path / "a.json")
    assert len(runs) == 1 and len(runs[0].requests) == 4
    assert [row["evaluation"] for row in rows] == kinds
    scores = {row["evaluation"]: row["scores"] for row in rows}
    assert scores["imagenet_real"] == {"top1": 1, "top5": 1, "examples": 334}
    of_image = best[np.arange(1000) % DRAWN]
    assert scores["classification"]["top1"] == (of_image.argmax(axis=1) == np.arange(1000)).mean()
    for kind in kinds[2:]:
        own = read_list(f"imagenet_{kind.split('_')[1]}_synsets.txt").split()
        numbers = np.array([SYNSETS.index(synset) for synset in own])
        right = of_image[numbers][:, numbers].argmax(axis=1) == np.arange(200)
        assert scores[kind]["top1"] == right.mean() and scores[kind]["examples"] == 200
        lines = [record.getMessage() for record in caplog.records]
        assert any(kind in line and "over the 200 logits of its classes" in line for line in lines)


def test_images_without_class_folders(
    weights: Path,
    best: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """ReaL on images as ImageNet's archive has them, and the file for VizWiz's server."""
    folder = tmp_path / "images"
    folder.mkdir()
    names = [f"ILSVRC2012_val_{number:08}.png" for number in range(1, 6)]
    for seed, name in enumerate(names):
        Image.fromarray(draw(seed)).save(folder / name)
    seen = best.argmax(axis=1).tolist()
    content = json.dumps([[seen[0]], [seen[1]], [], [0], [1], *[[]] * 49_995]).encode()
    (tmp_path / "real.json").write_bytes(content)
    monkeypatch.setattr(real, "SHA256", hashlib.sha256(content).hexdigest())
    flags = [f"--weights={weights}", f"--dataset={folder}"]
    given = ["--evaluator=imagenet_real", f"--evaluator.labels={tmp_path / 'real.json'}"]
    (row,) = evaluate(*flags, *given, output=tmp_path / "a.json")
    right = 2 + (seen[3] == 0) + (seen[4] == 1)
    assert (row["scores"]["top1"], row["scores"]["examples"]) == (right / 4, 4)
    own = [3, 500, 999]
    categories = [{"id": number, "wordnet_id": SYNSETS[number]} for number in own]
    annotations, submission = tmp_path / "annotations.json", tmp_path / "submission.json"
    annotations.write_text(json.dumps({"images": names, "categories": categories}))
    given = [f"--evaluator.annotations={annotations}", f"--evaluator.submission={submission}"]
    (row,) = evaluate(*flags, "--evaluator=vizwiz", *given, output=tmp_path / "b.json")
    assert row["scores"] == {"examples": 5}
    predictions = json.loads(submission.read_text())
    assert list(predictions) == names and set(predictions.values()) <= set(own)
    command = ["evaluate", *flags, flags[0], "--evaluator=vizwiz", *given]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"submission={submission} would hold the results of the last --weights only" in line


def test_a_set_needs_its_images(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    command = ["evaluate", f"--weights={weights}", "--evaluator=imagenet_a"]
    for flags, message in (
        ([], "--evaluator=imagenet_a would be ignored: it needs --dataset"),
        ([f"--dataset={tmp_path / 'none'}"], "does not exist; name a folder"),
        ([f"--dataset={tmp_path / 'empty'}"], "holds no images"),
        ([f"--dataset={tmp_path / 'empty'}", "--class_map=a.txt"], "has no key 'class_map'"),
    ):
        assert main([*command, *flags]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


# Pictures.


SIZE = (224, 224)
ROWS = [
    Row("runs/one/", "per_class", "photos", Scores({"top1": 0.5, "loss": 2.25}, ""), SIZE),
    Row("two.npz", "per_class", "photos", Scores({"top1": 0.75, "recall/a$b$": 0.25}, ""), SIZE),
]


def test_a_picture_has_a_panel_for_each_score() -> None:
    found = panels(ROWS)
    assert [panel.title for panel in found] == ["top1", "loss", "recall, two.npz: per_class"]
    assert found[0].labels == ["one: per_class", "two.npz: per_class"]
    assert found[0].values == [0.5, 0.75] and found[1].values == [2.25]
    assert (found[2].labels, found[2].values) == (["a$b$"], [0.25])


def test_bars_of_several_weights_are_told_apart() -> None:
    """Files of runs have one name, and a commit of the Hub leaves no room for the evaluation."""
    commit = "0123456789abcdef" * 2 + "01234567"
    hub = f"hf://org/vit-base-patch16-224-in21k@{commit}"
    weights = ["runs/a/weights.npz", "runs/b/weights.npz", hub]
    rows = [Row(w, "per_class", "photos", Scores({"top1": 0.5}, ""), SIZE) for w in weights]
    rows.append(Row(hub, "imagenet_real", "photos", Scores({"top1": 0.5}, ""), SIZE))
    (panel,) = panels(rows)
    assert panel.labels == [
        "a/weights.npz: per_class",
        "b/weights.npz: per_class",
        "org/vit-base-patch16-224-in21k@0123456: per_class",
        "org/vit-base-patch16-224-in21k@0123456: imagenet_real",
    ]
    text = as_picture(rows, ".svg").decode()
    assert "org/vit-base-patch1…k@0123456: per_class" in text and ": imagenet_real" in text


def test_of_many_classes_the_lowest_are_drawn() -> None:
    values = {f"recall/{i}": i / 100 for i in range(99, -1, -1)} | {"recall/x": float("nan")}
    (panel,) = panels([Row("w", "per_class", "photos", Scores(values, ""), SIZE)])
    assert panel.labels == [str(i) for i in range(60)]
    assert panel.title == "recall, per_class (the 60 lowest of 101)"


def test_pictures_are_png_and_svg(monkeypatch: pytest.MonkeyPatch) -> None:
    text = as_picture(ROWS, ".svg").decode()
    words = {element.text for element in ET.fromstring(text).iter() if element.text}
    assert {"top1", "loss", "0.7500", "2.2500", "a$b$", "two.npz: per_class"} <= words
    assert text == as_picture(ROWS, ".svg").decode()
    with Image.open(io.BytesIO(as_picture(ROWS, ".png"))) as image:
        assert image.height > 200
    monkeypatch.setattr(picture, "_HIGHEST", 200)
    with Image.open(io.BytesIO(as_picture(ROWS, ".png"))) as image:
        assert image.height <= 200


def test_one_call_writes_several_files(
    weights: Path, val: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    flags = [f"--weights={weights}", f"--dataset={val}", "--split=train[:5]"]
    drawn = tmp_path / "scores.svg"
    command = ["evaluate", *flags, f"--output={tmp_path / 'a.csv'}", f"--output={drawn}"]
    assert main(command) == 0
    assert (tmp_path / "a.csv").read_text().startswith("weights,evaluation,data,")
    assert "classification" in drawn.read_text()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(command) == 2
    assert "a picture needs the extra `plots`" in capsys.readouterr().err.splitlines()[-1]
