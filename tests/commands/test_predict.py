"""`predict` as a user types it, on a small model."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import scipy.special
from PIL import Image

import vit_jax
from tests.commands.named_photos import ERRORS, MODEL, NAMES, READABLE, write
from tests.real_processes import finish, start_on
from tests.small_models import random_params
from vit_jax.__main__ import main
from vit_jax.analysis.attention_maps import attention_maps, overlay
from vit_jax.commands.predict import list_files
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import write_weights

# A printed probability is rounded to six digits; batches of other sizes may round otherwise.
ROUNDING = 2e-6

# By image: class, name and probability of each answer, or the error.
# By image: rows of class, name and share, or why it cannot be read.
Answers = dict[str, Any]


def predict(weights: Path, images: list[str], output: Path | None, *flags: str) -> str:
    """Runs the command, which must succeed, and returns what it prints to stderr."""
    errors = io.StringIO()
    to = [] if output is None else [f"--output={output}"]
    with contextlib.redirect_stderr(errors):
        assert main(["predict", f"--weights={weights}", "--images", *images, *to, *flags]) == 0
    return errors.getvalue()


def read_csv(path: Path) -> Answers:
    answers: Answers = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            image = row["image"]
            if row["error"]:
                assert not any((row["rank"], row["class"], row["name"], row["probability"]))
                assert image not in answers
                answers[image] = row["error"]
                continue
            found = answers.setdefault(image, [])
            assert isinstance(found, list)
            found.append((int(row["class"]), row["name"], float(row["probability"])))
            assert row["rank"] == str(len(found))
    return answers


def read_json_lines(path: Path) -> Answers:
    answers: Answers = {}
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        image = line.pop("image")
        assert image not in answers
        if "error" in line:
            assert list(line) == ["error"]
            answers[image] = line["error"]
            continue
        assert list(line) == ["predictions"]
        answers[image] = [(p["class"], p["name"], p["probability"]) for p in line["predictions"]]
    return answers


def expected(weights: Path, files: list[Path], **options: Any) -> np.ndarray:
    """Softmax of the model's logits, [image, class]."""
    model = vit_jax.load_model(weights=weights, **options)
    logits = jax.jit(lambda images: model(images))(vit_jax.preprocess(files, model))
    return scipy.special.softmax(logits, axis=-1)


def assert_close(actual: Answers, wanted: Answers) -> None:
    assert list(actual) == list(wanted)
    for image, answers in wanted.items():
        if isinstance(answers, str):
            assert actual[image] == answers
            continue
        assert [a[:2] for a in actual[image]] == [a[:2] for a in answers]
        shares = [[float(a[2]) for a in pairs] for pairs in (actual[image], answers)]
        np.testing.assert_allclose(*shares, rtol=0, atol=ROUNDING)


@pytest.fixture(scope="module")
def answers(weights: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The answers for all images in the folder, in one batch."""
    output = tmp_path_factory.mktemp("answers") / "photos.csv"
    said = predict(weights, [str(photos)], output)
    assert said == (
        f"--images={photos}: left out 1 file without an image (1 .txt)\n"
        "4 of 7 images could not be read\n"
    )
    assert sorted(os.listdir(output.parent)) == ["photos.csv", "photos.csv.json"]
    return read_csv(output)


def test_readable_images_get_their_classes(answers: Answers, weights: Path, photos: Path) -> None:
    files = [photos / name for name in READABLE]
    for file, shares in zip(files, expected(weights, files), strict=True):
        found = answers[str(file)]
        order = np.argsort(-shares)
        assert [pair[:2] for pair in found] == [(label, NAMES[label]) for label in order]
        np.testing.assert_allclose([p[2] for p in found], shares[order], rtol=0, atol=ROUNDING)
        assert 0.3 < shares.max() < 0.99  # Or nothing would have been shown.


def test_unreadable_images_are_reported_in_their_place(answers: Answers, photos: Path) -> None:
    names = ["a.png", "b.png", "c.JPG", "d.jpg", "deep/er/e.webp", "deep/f.gif", "g.png"]
    assert list(answers) == [str(photos / name) for name in names]
    for name, reason in ERRORS.items():
        error = answers[str(photos / name)]
        assert isinstance(error, str) and error.startswith("cannot read the ") and reason in error


def test_json_lines_and_printed_lines_say_the_same(
    answers: Answers,
    weights: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "photos.jsonl"
    assert "4 of 7" in predict(weights, [str(photos)], output)
    assert_close(read_json_lines(output), answers)
    assert "4 of 7" in predict(weights, [str(photos)], None)
    lines = capsys.readouterr().out.splitlines()
    blocks = [line for line in lines if not line.startswith(" ")]
    assert blocks == list(answers)
    first = lines.index(str(photos / "b.png")) + 1
    for line, (label, name, share) in zip(
        lines[first : first + 5], answers[str(photos / "b.png")], strict=True
    ):
        shown, number, text = line.split(maxsplit=2)
        assert (int(number), text) == (label, name)
        assert float(shown.rstrip("%")) == pytest.approx(100 * share, abs=0.0051)
    assert f"  {answers[str(photos / 'd.jpg')]}" in lines


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_do_not_matter(
    batch_size: int, answers: Answers, weights: Path, photos: Path, tmp_path: Path
) -> None:
    predict(weights, [str(photos)], tmp_path / "a.csv", f"--batch_size={batch_size}")
    assert_close(read_csv(tmp_path / "a.csv"), answers)


@pytest.mark.parametrize("top_k", [2, len(NAMES)])
def test_top_k(top_k: int, answers: Answers, weights: Path, photos: Path, tmp_path: Path) -> None:
    predict(weights, [str(photos)], tmp_path / "a.csv", f"--top_k={top_k}")
    found = read_csv(tmp_path / "a.csv")
    cut = {k: v if isinstance(v, str) else v[:top_k] for k, v in answers.items()}
    assert_close(found, cut)
    if top_k == len(NAMES):
        shares = [pair[2] for pair in found[str(photos / "b.png")]]
        assert len(shares) == len(NAMES) and sum(shares) == pytest.approx(1, abs=5e-6)


def test_images_come_in_the_order_that_was_given(
    answers: Answers, weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(photos / name) for name in ("c.JPG", "b.png")]
    # A flag that is given twice adds to the first.
    again = [*files, "--images", str(photos / "deep/*/*.webp")]
    predict(weights, again, tmp_path / "a.csv")
    order = [*files, str(photos / "deep/er/e.webp")]
    assert_close(read_csv(tmp_path / "a.csv"), {file: answers[file] for file in order})


def test_files_folders_and_patterns(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    monkeypatch.setenv("HOME", str(photos))
    assert list_files(["deep", "b.png"]) == ["deep/er/e.webp", "deep/f.gif", "b.png"]
    assert list_files(["b.png", "./b.png"]) == ["b.png", "./b.png"]
    assert list_files(["?.png"]) == ["a.png", "b.png", "g.png"]
    assert list_files(["**/*.webp", "~/b.png"]) == ["deep/er/e.webp", f"{photos}/b.png"]
    # What is named is an image, whatever its name.
    assert list_files(["notes.txt"]) == ["notes.txt"]


def test_brackets_in_a_name_are_no_pattern(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "a[1].png"
    file.symlink_to(photos / "b.png")
    assert list_files([str(file)]) == [str(file)]


def test_names_of_files_need_not_be_text(
    answers: Answers,
    weights: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "in").mkdir()
    file = os.path.join(os.fsencode(tmp_path), b"in", b"\xff,\n.png")
    os.symlink(photos / "b.png", file)
    wanted = answers[str(photos / "b.png")]
    predict(weights, [str(tmp_path / "in")], tmp_path / "a.jsonl")
    assert_close(read_json_lines(tmp_path / "a.jsonl"), {os.fsdecode(file): wanted})
    predict(weights, [str(tmp_path / "in")], tmp_path / "a.csv")
    assert_close(read_csv(tmp_path / "a.csv"), {f"{tmp_path}/in/\\udcff,\\u000a.png": wanted})
    # A terminal that knows neither that nor accents.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    predict(weights, [str(tmp_path / "in")], None)
    sys.stdout.flush()
    printed = sys.stdout.buffer.getvalue()
    assert b"\\udcff" in printed and b"\\xe9lan" in printed


@pytest.mark.parametrize("text", ["1\n2\n3\nvier und\n5", "\ufeff1\r\n2\r\n3\r\nvier und\r\n5\r\n"])
def test_class_names_of_a_file(
    text: str, answers: Answers, weights: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text(text, encoding="utf-8", newline="")
    image = str(photos / "b.png")
    predict(weights, [image], tmp_path / "a.csv", f"--class_names={tmp_path / 'names.txt'}")
    names = ("1", "2", "3", "vier und", "5")
    wanted = [(label, names[label], share) for label, _, share in answers[image]]
    assert_close(read_csv(tmp_path / "a.csv"), {image: wanted})


def test_classes_without_names_are_numbers(
    answers: Answers, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path / "w.npz", names=None)
    image = str(photos / "b.png")
    predict(path, [image], Path("~/a.csv"))
    wanted = [(label, str(label), share) for label, _, share in answers[image]]
    assert_close(read_csv(tmp_path / "a.csv"), {image: wanted})


@pytest.mark.parametrize(("flag", "size"), [("32", 32), ("24x40", (24, 40))])
def test_another_image_size(
    flag: str, size: int | tuple[int, int], weights: Path, photos: Path, tmp_path: Path
) -> None:
    files = [photos / name for name in READABLE]
    predict(weights, [*map(str, files)], tmp_path / "a.csv", f"--image_size={flag}")
    found = read_csv(tmp_path / "a.csv")
    for file, shares in zip(files, expected(weights, files, image_size=size), strict=True):
        by_class = {label: share for label, _, share in found[str(file)]}
        actual = [by_class[label] for label in range(len(NAMES))]
        np.testing.assert_allclose(actual, shares, rtol=0, atol=ROUNDING)


def test_four_devices_say_the_same(
    answers: Answers, weights: Path, photos: Path, tmp_path: Path
) -> None:
    """A batch of 3 becomes one of 4, an image a device; the second is not full."""
    command = [sys.executable, "-m", "vit_jax", "predict", f"--weights={weights}"]
    flags = ["--batch_size=3", f"--output={tmp_path / 'a.csv'}"]
    (output,) = finish(start_on((1, 4), [*command, "--images", str(photos), *flags]))
    assert output.endswith("4 of 7 images could not be read\n")
    assert_close(read_csv(tmp_path / "a.csv"), answers)


@pytest.mark.parametrize("layout", ["google", "huggingface"])
def test_after_the_sigmoid_loss_each_class_has_its_own_probability(
    layout: str, photos: Path, tmp_path: Path
) -> None:
    params = random_params(MODEL)
    params["head"]["kernel"] *= 0.2
    params["head"]["bias"][3:] = 40  # Both round to 1; the order is still that of the logits.
    write_weights(tmp_path / "run.npz", params, MODEL, extra={"loss": "sigmoid"})
    path = tmp_path / ("w.npz" if layout == "google" else "w.safetensors")
    arguments = ["convert", f"--source={tmp_path / 'run.npz'}", f"--target={path}"]
    assert main([*arguments, f"--layout={layout}"]) == 0
    files = [photos / name for name in READABLE]
    predict(path, [*map(str, files)], tmp_path / "a.csv")
    model = vit_jax.load_model(weights=path)
    found = read_csv(tmp_path / "a.csv")
    for file, logits in zip(files, model(vit_jax.preprocess(files, model)), strict=True):
        answers = found[str(file)]
        assert [label for label, _, _ in answers] == np.argsort(-logits).tolist()
        wanted = 1 / (1 + np.exp(-np.sort(np.asarray(logits, np.float64))[::-1]))
        np.testing.assert_allclose([share for _, _, share in answers], wanted, atol=ROUNDING)


def test_weights_of_a_run_on_a_gpu(photos: Path, tmp_path: Path) -> None:
    """Their description names a kind of attention that other devices lack."""
    on_gpu = dataclasses.replace(MODEL, dtype="bfloat16", attention="cudnn")
    path = write(tmp_path / "w.npz", on_gpu)
    predict(path, [str(photos / "b.png")], tmp_path / "a.csv")
    assert len(read_csv(tmp_path / "a.csv")[str(photos / "b.png")]) == len(NAMES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_is_no_file_gets_a_line_of_its_own(
    answers: Answers, weights: Path, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "b.png")
    (folder / "c.png").symlink_to(folder / "c.png")
    (folder / "d.jfif").symlink_to(photos / "c.JPG")
    (folder / "e").symlink_to(photos / "b.png")
    predict(weights, [str(folder), "/dev/zero"], tmp_path / "a.csv")
    wanted = {
        str(folder / "a.jpg"): "cannot read the file (a device and not a file)",
        str(folder / "b.png"): "cannot read the file (a pipe and not a file)",
        str(folder / "c.png"): "cannot read the file (Too many levels of symbolic links)",
        str(folder / "d.jfif"): answers[str(photos / "c.JPG")],
        str(folder / "e"): answers[str(photos / "b.png")],
        "/dev/zero": "cannot read the file (a device and not a file)",
    }
    assert_close(read_csv(tmp_path / "a.csv"), wanted)


def test_attention_maps_show_what_the_model_sees(
    answers: Answers, weights: Path, photos: Path, tmp_path: Path
) -> None:
    """Each image that can be read has a picture, dark where rollout on the host is low."""
    maps = tmp_path / "maps"
    predict(weights, [str(photos)], tmp_path / "a.csv", f"--attention_maps={maps}")
    assert_close(read_csv(tmp_path / "a.csv"), answers)
    found = sorted(str(path.relative_to(maps)) for path in maps.rglob("*.*"))
    assert found == [f"{name}.png" for name in READABLE]
    model = vit_jax.load_model(weights=weights)
    for name in READABLE:
        images = vit_jax.preprocess([photos / name], model)
        _, captured = model(images, capture=("attention",))
        (attention,) = attention_maps(
            np.asarray(captured["attention"]), model.config.grid, has_class_token=True
        )
        preprocessing = model.config.preprocessing
        pixels = (np.asarray(images[0]) * preprocessing.std + preprocessing.mean) * 255
        wanted = overlay(pixels.round().astype(np.uint8), attention)
        with Image.open(maps / f"{name}.png") as image:
            np.testing.assert_allclose(
                np.asarray(image, int), np.asarray(wanted, int), rtol=0, atol=1
            )
    # The same command has nothing left to do, another one is told.
    said = predict(weights, [str(photos)], tmp_path / "a.csv", f"--attention_maps={maps}")
    assert "a.csv has 7 of 7 images" in said and "4 of 7 images could not be read" in said


# What is no prediction.


@pytest.fixture(scope="module")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "headless.npz"
    return write(path, dataclasses.replace(MODEL, num_classes=0))


@pytest.fixture(scope="module")
def mixer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = {"depth": 2, "width": 16, "mlp_dim": 24, "token_mlp_dim": 10}
    model = ModelConfig("Mixer-S/8", image_size=16, num_classes=5, **size).completed()
    return write(tmp_path_factory.mktemp("weights") / "mixer.npz", model)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "https://example.org/a.png"], "URLs are not taken; download"),
        (["--images", "gs://bucket/a/*.png"], "name a folder, such as gs://bucket/a"),
        (["--images", "{photos}/x.png"], "--images={photos}/x.png: no such image"),
        (["--images", "{photos}/*.bmp"], "--images={photos}/*.bmp: no such image"),
        (["--images", "{photos}/b.png", "{empty}"], "--images={empty}: no such image"),
        (["--output={empty}/a.txt"], "--output={empty}/a.txt: name a .csv or a .jsonl file"),
        (["--output={empty}/a"], "name a .csv or a .jsonl file"),
        (["--output={empty}/no/a.csv"], "--output={empty}/no/a.csv: No such file or directory"),
        (["--output={photos}/b.png/a.csv"], "--output={photos}/b.png/a.csv: Not a directory"),
        ([f"--output={{empty}}/{'x' * 260}.csv"], "File name too long; choose another file"),
        (["--class_names={photos}/notes.txt"], "notes.txt: 1 class names, but the model has 5"),
        (["--class_names={photos}/no.txt"], "no.txt"),
        (["--class_names={photos}/c.JPG"], "c.JPG"),
        (["--weights={photos}/no.npz"], "{photos}/no.npz: no such file"),
        (["--weights={headless}"], "the model has no head"),
        (["--top_k=2000"], "top_k=2000: the model has"),
        (["--attention_maps={photos}/maps"], "lies among the images"),
        (["--images", "{photos}/*.png", "--attention_maps={photos}"], "lies among the images"),
        (["--weights={mixer}", "--attention_maps={empty}/maps"], "Mixer-S/8 has no attention"),
        (["--attention_maps={photos}/b.png", "--images", "{photos}/c.JPG"], "choose another dir"),
        (["--top_k=0"], "top_k=0 must be at least 1"),
        (["--batch_size=-1"], "batch_size=-1"),
        (["--image_size=7"], "image_size 7x7 is below one patch of ViT-mu/8"),
        (["--image_size=16x16x3"], "argument --image_size: '16x16x3' is not a size"),
        (["--config.seed=1"], "would be ignored"),
    ],
)
def test_mistakes_end_in_one_line(
    flags: list[str],
    message: str,
    weights: Path,
    headless: Path,
    mixer: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"photos": photos, "empty": tmp_path, "headless": headless, "mixer": mixer}
    command = ["predict", f"--weights={weights}"]
    if "--images" not in flags:
        command += ["--images", str(photos)]
    assert main([*command, *(flag.format(**places) for flag in flags)]) == 2
    output, error = capsys.readouterr()
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message.format(**places) in error
    assert output == "" and os.listdir(tmp_path) == []


def test_a_full_disk_leaves_nothing(
    weights: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    command = ["predict", f"--weights={weights}", "--images", str(photos / "b.png")]
    assert main([*command, f"--output={tmp_path / 'a.csv'}"]) == 2
    assert "a.csv: No space left on device; choose" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
