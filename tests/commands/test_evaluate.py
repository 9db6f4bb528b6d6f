"""`evaluate` as a user types it: classes that other names, orders and parts of them have."""

import csv
import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.commands.scored_photos import (
    COUNT,
    NAMES,
    accuracy,
    evaluate,
    make_params,
    predicted,
    score,
    write_model,
    write_photos,
)
from tests.small_models import SMALL
from vit_jax.__main__ import main
from vit_jax.weights.files import write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("weights") / "w.npz")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> dict[str, list[int]]:
    """By class, the numbers of images: most where `predict` sees them, some elsewhere."""
    folder = tmp_path_factory.mktemp("photos")
    seen = predicted(weights, write_photos(folder, {"x": list(range(COUNT))}))
    classes: dict[str, list[int]] = {name: [] for name in NAMES}
    for seed, names in seen.items():
        right = seed % 4 != 0
        classes[names[0] if right else NAMES[(NAMES.index(names[0]) + 1) % 5]].append(seed)
    assert all(classes.values())
    return classes


# Which class is which.


@pytest.mark.parametrize("subset", [False, True])
@pytest.mark.parametrize(
    "folders",
    [
        {name: name for name in NAMES},
        {"fox": "fox", "dog": "dog"},
        {"Dog": "dog", "GNU": "gnu", "cat": "cat"},
    ],
)
def test_it_agrees_with_predict(
    folders: Any, subset: bool, weights: Path, photos: dict[str, list[int]], tmp_path: Path
) -> None:
    folder = write_photos(tmp_path / "photos", {f: photos[name] for f, name in folders.items()})
    flags = ["--classes=subset"] if subset else []
    found = score(tmp_path / "a.json", weights, folder, *flags)
    assert found["examples"] == sum(len(photos[name]) for name in folders.values())
    assert found["top1"] == accuracy(weights, folder, folders, own_only=subset)
    assert 0 < found["top1"] < 1
    if len(folders) <= 5 and subset:
        assert found["top5"] == 1


def test_a_table_is_scored_as_the_folder_that_it_names(
    weights: Path,
    photos: dict[str, list[int]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = write_photos(tmp_path / "photos", {name: photos[name] for name in ("dog", "fox")})
    rows = [
        f"photos/{path.relative_to(folder)},{path.parent.name},x" for path in folder.glob("*/*")
    ]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,label,class", *rows]))
    wanted = score(tmp_path / "a.json", weights, folder)
    # The rows of both may lie in another order, and float32 sums round.
    close = pytest.approx(wanted, rel=1e-6)
    assert score(tmp_path / "b.json", weights, table, "--label=label") == close
    flags = [f"--weights={weights}", f"--dataset={table}", "--label=label"]
    with caplog.at_level(logging.INFO):
        (row,) = evaluate(tmp_path / "c.json", *flags, "--evaluator=per_class")
    assert row["scores"]["top1"] == wanted["top1"]
    # A line for each class, not one line for all of them.
    lines = [record.getMessage() for record in caplog.records]
    assert all("\n" not in line for line in lines)
    assert [line.split()[0] for line in lines[-2:]] == ["dog", "fox"]


def test_renamed_classes_need_a_map(
    weights: Path, photos: dict[str, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = {"dog": "dog", "a_fox": "fox", "kitten": "cat"}
    folder = write_photos(tmp_path / "photos", {f: photos[name] for f, name in renamed.items()})
    command = ["evaluate", f"--weights={weights}", f"--dataset={folder}"]
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "'a_fox', 'kitten'" in error and "'cat', 'dog', 'emu', 'fox', 'gnu'" in error
    assert "--class_map=FILE" in error
    (tmp_path / "map.txt").write_text("a_fox -> fox\nkitten -> cat\n")
    found = score(tmp_path / "a.json", weights, folder, f"--class_map={tmp_path / 'map.txt'}")
    assert found["top1"] == accuracy(weights, folder, renamed)
    # Nothing behind the arrow leaves a class out.
    (tmp_path / "map.txt").write_text("a_fox -> fox\nkitten ->\n")
    found = score(tmp_path / "a.json", weights, folder, f"--class_map={tmp_path / 'map.txt'}")
    assert found["examples"] == len(photos["dog"]) + len(photos["fox"])


def test_a_head_whose_rows_are_permuted_with_its_names(
    weights: Path, photos: dict[str, list[int]], tmp_path: Path
) -> None:
    folder = write_photos(tmp_path / "photos", photos)
    params = make_params()
    order = [3, 1, 4, 0, 2]
    params["head"] = {k: v[..., order] for k, v in params["head"].items()}
    write_weights(tmp_path / "p.npz", params, SMALL, class_names=tuple(NAMES[i] for i in order))
    expected, found = (
        score(tmp_path / "a.json", path, folder) for path in (weights, tmp_path / "p.npz")
    )
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_head_without_names(
    photos: dict[str, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_model(tmp_path / "w.npz", names=None)
    folder = write_photos(tmp_path / "all", photos)
    numbers = {name: str(i) for i, name in enumerate(NAMES)}
    assert score(tmp_path / "a.json", path, folder)["top1"] == accuracy(path, folder, numbers)
    part = write_photos(tmp_path / "part", {"cat": photos["cat"], "emu": photos["emu"]})
    assert main(["evaluate", f"--weights={path}", f"--dataset={part}"]) == 2
    assert "2 classes ('cat', 'emu')" in capsys.readouterr().err
    # Folders may be called by the models' numbers.
    named = write_photos(tmp_path / "numbers", {"4": photos["gnu"], "2": photos["emu"]})
    found = score(tmp_path / "a.json", path, named)
    assert found["top1"] == accuracy(path, named, {"4": "4", "2": "2"})


# Which examples, and where the scores go.


def test_several_weights_and_evaluators_in_one_call(
    weights: Path, photos: dict[str, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_photos(tmp_path / "photos", photos)
    other = write_model(tmp_path / "other.npz", seed=1)
    flags = [f"--weights={weights}", f"--weights={other}", f"--dataset={folder}"]
    rows = evaluate(tmp_path / "a.json", *flags)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["weights", "evaluation", "data", *rows[0]["scores"]]
    assert [line.split()[0] for line in lines[1:]] == [str(weights), str(other)]
    assert [row["weights"] for row in rows] == [str(weights), str(other)]
    assert rows[0]["scores"] != rows[1]["scores"]
    for row, path in zip(rows, (weights, other), strict=True):
        assert row["scores"] == score(tmp_path / "b.json", path, folder)
    assert main(["evaluate", *flags, f"--output={tmp_path / 'a.csv'}"]) == 0
    with open(tmp_path / "a.csv", newline="") as file:
        for read, row in zip(csv.DictReader(file), rows, strict=True):
            assert read["weights"] == row["weights"]
            assert {k: float(read[k]) for k in row["scores"]} == row["scores"]


def test_which_split_is_scored(
    weights: Path, photos: dict[str, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    whole = write_photos(root, photos)
    assert score(tmp_path / "a.json", weights, whole)["examples"] == 40
    for scored, others in {
        "test": ["val", "valid"],
        "val": ["other"],
        "valid": [],
        "": ["x"],
    }.items():
        splits = tmp_path / f"splits_{scored}"
        write_photos(splits / "train", photos)
        for split in others:
            write_photos(splits / split, {"cat": photos["cat"]})
        if scored:
            write_photos(splits / scored, {"dog": photos["dog"]})
            found = score(tmp_path / "a.json", weights, splits)
            assert found["examples"] == len(photos["dog"])
        else:
            assert main(["evaluate", f"--weights={weights}", f"--dataset={splits}"]) == 2
            assert "--split: train, x" in capsys.readouterr().err
    found = score(tmp_path / "a.json", weights, tmp_path / "splits_val", "--split=train+val")
    assert found["examples"] == COUNT + len(photos["dog"])


def test_batch_and_image_size(weights: Path, photos: dict[str, list[int]], tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", photos)
    expected = score(tmp_path / "a.json", weights, folder)
    found = score(tmp_path / "a.json", weights, folder, "--batch_size=3")
    assert found == pytest.approx(expected, rel=1e-5)
    larger = score(tmp_path / "a.json", weights, folder, "--image_size=24x32")
    assert larger["examples"] == 40 and larger["loss"] != expected["loss"]


def test_an_unreadable_image_ends_it_or_is_left_out(
    weights: Path, photos: dict[str, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_photos(tmp_path / "photos", photos)
    (folder / "cat" / "junk.png").write_bytes(b"junk")
    command = ["evaluate", f"--weights={weights}", f"--dataset={folder}"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "junk.png" in error and "leave such images out: --on_error=skip" in error
    assert score(tmp_path / "a.json", weights, folder, "--on_error=skip")["examples"] == 40


OWN_KIND = """
from dataclasses import dataclass

from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.evaluator import Scores
from vit_jax.inference.requests import Request


@EvalConfig.kinds.register("mean_logit")
@dataclass(frozen=True)
class MeanLogitConfig(EvalConfig):
    factor: float = 1.0

    def make(self, opener):
        return MeanLogit(opener.source(self.split, self.dataset), self.factor)


class MeanLogit:
    score_names, lower_is_better = ("mean",), frozenset()

    def __init__(self, source, factor):
        self.factor = factor
        self.requests = {"test": Request(source, rows=lambda batch: {"x": batch["logits"]})}

    def scores(self, answers):
        mean = self.factor * float(answers["test"].rows["x"].mean(dtype=float))
        return Scores({"mean": mean}, f"mean {mean:.3f}")


def get_config():
    return {}
"""


def test_a_kind_of_ones_own_from_a_config_file(
    weights: Path, photos: dict[str, list[int]], tmp_path: Path
) -> None:
    folder = write_photos(tmp_path / "photos", photos)
    (tmp_path / "own.py").write_text(OWN_KIND)
    flags = [f"--weights={weights}", f"--dataset={folder}", f"--config={tmp_path / 'own.py'}"]
    (one,) = evaluate(tmp_path / "a.json", *flags, "--evaluator=mean_logit")
    options = ["--evaluator=mean_logit,classification", "--evaluator.factor=-2"]
    twice, classification = evaluate(tmp_path / "b.json", *flags, *options)
    assert one["evaluation"] == "mean_logit" and one["scores"]["mean"] != 0
    assert twice["scores"]["mean"] == pytest.approx(-2 * one["scores"]["mean"])
    assert twice["text"] == f"mean {twice['scores']['mean']:.3f}"
    assert classification["scores"]["examples"] == COUNT


# What is refused.


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --dataset, or --config"),
        (["--split=test"], "--split=test would be ignored: it needs --dataset"),
        (["--classes=subset"], "would be ignored: it needs --dataset"),
        (["--evaluator.classes=subset"], "would be ignored: it needs --dataset"),
        (["--dataset={photos}", "--evaluator=clasification"], "did you mean 'classification'?"),
        (["--dataset={photos}", "--evaluator.clases=all"], "did you mean 'classes'?"),
        (["--dataset={photos}", "--evaluator.every_steps=2"], "no key 'every_steps'"),
        (["--dataset={photos}", "--evaluator.classes=any"], "evaluator.classes: "),
        (["--dataset={photos}", "--config.seed=1"], "would be ignored: it needs --config"),
        (["--dataset={photos}", "--batch_size=0"], "--batch_size=0 must be at least 1"),
        (["--dataset={photos}", "--output=a.txt"], "a.txt: name a .json, .csv, .png or .svg"),
        (["--dataset={photos}", "--split=none"], "none"),
        (["--dataset={photos}/nowhere"], "does not exist"),
        (["--dataset=no_such_data_set"], "no_such_data_set"),
        (["--dataset={photos}", "--weights={headless}"], "no head"),
        (["--dataset={photos}", "--class_map={photos}/no.txt"], "no.txt"),
    ],
)
def test_mistakes_end_in_one_line(
    flags: Any,
    message: str,
    weights: Path,
    photos: dict[str, list[int]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    headless = dataclasses.replace(SMALL, num_classes=0)
    places = {
        "photos": write_photos(tmp_path / "photos", {"cat": photos["cat"]}),
        "headless": write_model(tmp_path / "headless.npz", headless, names=None),
    }
    command = ["evaluate", f"--weights={weights}", *(flag.format(**places) for flag in flags)]
    assert main(command) == 2
    output, error = capsys.readouterr()
    assert error.splitlines()[-1].startswith("error: ") and output == ""
    assert message in error.splitlines()[-1]
