"""Runs in the rows of published tables: which, with which difference, and why not."""

import json
import os
from pathlib import Path
from unittest import mock

import pytest

from tests.experiments.ended_runs import ended_run
from tests.small_models import refusal
from vit_jax.experiments.paper.page import Page
from vit_jax.experiments.paper.tables import table
from vit_jax.weights.catalogue import augreg

FILE = "imagenet21k/ViT-B_16"


def ours(page: Page) -> dict[tuple[object, ...], tuple[object, float]]:
    """Published and own values that come from runs, by row and column."""
    found = {}
    for record in page.records or ():
        if record["runs"]:
            *row, published, _, own = list(record.values())[:-3]
            assert isinstance(own, float)
            found[tuple(row)] = published, own
    return found


def reason(page: Page) -> str:
    """Why the last of the runs has no row."""
    name, _, why = page.notes[-1].partition(" has no row: ")
    assert why, name
    return why


def fine_tuned(directory: Path, data: str, top1: float, *changes: str) -> str:
    """A run of B/16 from the released file that was pre-trained on ImageNet-21k."""
    spec = f"finetune.py:b16,{data},weights={FILE}"
    return str(ended_run(directory, spec, {"test/top1": top1, "test/loss": 0.1}, *changes))


def test_a_run_stands_beside_its_figure_in_table_5(tmp_path: Path) -> None:
    page = table("5", [fine_tuned(tmp_path / "run", "cifar10", 0.9871)])
    row = ("imagenet21k", "cifar10", "ViT-B/16")
    assert ours(page) == {row: (98.95, pytest.approx(98.71))}
    assert page.heading[:5] == ("pre-trained on", "scored on", "ViT-B/16", "ours", "diff")
    (line,) = [line for line in page.rows if line[:2] == row[:2]]
    assert line[2:6] == ("98.95", "98.71", "-0.24", "98.79")
    assert page.notes[-1] == f"{tmp_path / 'run'}: imagenet21k, cifar10, ViT-B/16"


def test_averages_of_ours_need_all_five(tmp_path: Path) -> None:
    scores = {"imagenet": 0.84, "cifar10": 0.99, "cifar100": 0.92, "pets": 0.94, "flowers": 0.99}
    runs = [fine_tuned(tmp_path / data, data, top1) for data, top1 in scores.items()]
    (line,) = [r for r in table("5", runs).rows if r[:2] == ("imagenet21k", "Average-5")]
    # (83.97 + 98.95 + 91.67 + 94.43 + 99.38) / 5
    assert line[2:5] == ("93.68", "93.60", "-0.08")
    (line,) = [r for r in table("5", runs[1:]).rows if r[:2] == ("imagenet21k", "Average-5")]
    assert line[2:5] == ("93.68", "", "")


def test_a_directory_of_runs_with_several_seeds(tmp_path: Path) -> None:
    for seed, top1 in enumerate((0.98, 0.99, 0.985)):
        fine_tuned(tmp_path / f"sweep/final/{seed}", "cifar10", top1, f"--config.seed={seed}")
    page = table("5", [str(tmp_path)])
    (line,) = [line for line in page.rows if line[:2] == ("imagenet21k", "cifar10")]
    assert line[3] == "98.50±0.50"
    # Named twice, a run counts once.
    again = table("5", [str(tmp_path), str(tmp_path / "sweep/final/0")])
    assert again.rows == page.rows


def test_a_run_that_was_pre_trained_by_a_run(tmp_path: Path) -> None:
    scores = {"minival/top1": 0.7, "val/top1": 0.7479}
    first = ended_run(tmp_path / "first", "pretrain.py:b16,imagenet", scores)
    spec = f"finetune.py:b16,pets,weights={first}"
    run = ended_run(tmp_path / "pets", spec, {"test/top1": 0.94})
    page = table("5", [str(run)])
    assert ours(page) == {("imagenet", "pets", "ViT-B/16"): (93.81, pytest.approx(94.0))}
    assert reason(table("5", [str(first)])) == (
        "it was trained on imagenet (300 epochs); the table's are pre-trained, then fine-tuned once"
    )


@pytest.mark.parametrize(
    ("data", "changes", "why"),
    [
        ("resisc45", (), "the table has no resisc45 after pre-training on imagenet21k"),
        ("pets", ("model.image_size=224",), "it was scored at 224 pixels, and the table's at 384"),
        ("pets", ("model.depth=2",), "its model is ViT-B/16 with depth=2"),
        ("pets", ("init_from=sam/ViT-B_16",), "it comes from the released files of sam"),
        ("pets", ("init_from=./own.npz",), "nothing tells what ./own.npz was trained on"),
        ("pets", ("model.name=s16",), "the table has no s16"),
        (
            "pets",
            ("evals.test.split=train[90%:]",),
            "it was scored on train[90%:] of pets, and the table's on test",
        ),
        (
            "pets",
            ("evals.test.dataset=cifar10",),
            "it was fine-tuned on pets and scored on cifar10",
        ),
    ],
)
def test_why_a_run_has_no_row(
    tmp_path: Path, data: str, changes: tuple[str, ...], why: str
) -> None:
    overrides = [f"--config.{change}" for change in changes]
    assert reason(table("5", [fine_tuned(tmp_path / "run", data, 0.9, *overrides)])) == why


def test_runs_without_scores(tmp_path: Path) -> None:
    run = Path(fine_tuned(tmp_path / "run", "pets", 0.9, "--config.evals=none"))
    assert reason(table("5", [str(run)])) == "it has no scores of an evaluation"
    (run / "weights.npz").unlink()
    assert reason(table("5", [str(run)])) == "it has not ended, so it has no final scores"


def test_the_weights_of_a_start_whose_time_was_up_are_not_final(tmp_path: Path) -> None:
    run = fine_tuned(tmp_path / "run", "pets", 0.9)
    file = tmp_path / "run" / "weights.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"has_ended": False}))
    assert reason(table("5", [run])) == "it has not ended, so it has no final scores"


def test_a_directory_that_may_not_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = PermissionError(13, "Permission denied")
    monkeypatch.setattr(os, "listdir", mock.Mock(side_effect=error))
    told = refusal(table, "5", [str(tmp_path)])
    assert told == f"--runs={tmp_path}: Permission denied; name the runs that can be read"


def test_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("photos", "missing"):
        told = refusal(table, "5", [str(tmp_path / name)])
        assert told.startswith(f"--runs={tmp_path / name}: neither the directory of a run nor one")
    scores = tmp_path / "scores.json"
    for text in ("{", "{}", "[]", "[1]", '[{"weights": "x"}]', "null"):
        scores.write_text(text)
        told = refusal(table, "5", [str(scores)])
        assert told.startswith(f"--runs={scores}: not what evaluate --output=FILE.json writes")
    told = refusal(table, "3", [str(tmp_path)])
    assert told.startswith("--runs would be ignored: table 3 holds no results, but 2, 5,")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"evals": ["test"]}),
        ("config.json", {"data": None}),
        ("config.json", {"data": {"dataset": "imagenet", "train": "train", "batch_size": "x"}}),
        ("weights.json", {"scores": {"test/top1": "high"}}),
        ("weights.json", {"scores": [0.9]}),
    ],
)
def test_damaged_files_of_a_run(name: str, change: dict[str, object], tmp_path: Path) -> None:
    run = fine_tuned(tmp_path / "run", "pets", 0.9)
    file = tmp_path / "run" / name
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    told = refusal(table, "5", [run])
    assert told.startswith(f"--runs={run}: its config.json or weights.json is damaged (")


def test_there_is_no_such_table() -> None:
    assert refusal(table, "10") == (
        "--table=10: there is no such table; name one of "
        "1, 2, 3, 4, 5, 6, 7, 8, 9, augreg, timm, leaderboard"
    )


def scores_file(file: Path, *rows: tuple[str, str, str, int, float]) -> str:
    """A file as `evaluate --output` writes it: weights, evaluation, data, side, top-1."""
    values = [
        {
            "weights": weights,
            "evaluation": evaluation,
            "data": data,
            "scores": {"top1": top1, "top5": 1.0, "examples": 50_000.0},
            "image_size": [side, side],
            "text": "",
        }
        for weights, evaluation, data, side, top1 in rows
    ]
    file.write_text(json.dumps(values))
    return str(file)


def test_released_files_that_evaluate_scored(tmp_path: Path) -> None:
    weights = "imagenet21k+imagenet2012/ViT-B_16"
    file = scores_file(
        tmp_path / "scores.json",
        (weights, "classification", "imagenet2012/validation", 384, 0.84),
        (weights, "imagenet_real", "./imagenet_val/all", 384, 0.884),
    )
    in_table_5 = ours(table("5", [file]))
    assert in_table_5 == {
        ("imagenet21k", "imagenet", "ViT-B/16"): (83.97, pytest.approx(84.0)),
        ("imagenet21k", "imagenet_real", "ViT-B/16"): (88.35, pytest.approx(88.4)),
    }
    name = "vit_base_patch16_384.orig_in21k_ft_in1k"
    assert ours(table("timm", [file])) == {
        (name, "imagenet"): (84.212, pytest.approx(84.0)),
        (name, "imagenet_real"): (88.398, pytest.approx(88.4)),
    }


@pytest.mark.parametrize(
    ("folder", "is_imagenet"),
    [
        ("/data/imagenet_val/all", True),
        ("/data/imagenet/val/all", True),
        ("/data/ImageNet/validation", True),
        ("./imagenet2012/val", True),
        # As many images, but others.
        ("/data/photos/all", False),
        ("./imagenet-c/all", False),
    ],
)
def test_a_folder_of_imagenet_s_validation_images(
    tmp_path: Path, folder: str, is_imagenet: bool
) -> None:
    weights = "../weights/deit_tiny_patch16_224.safetensors"
    row = (weights, "classification", folder, 224, 0.7219)
    page = table("timm", [scores_file(tmp_path / "scores.json", row)])
    name = "deit_tiny_patch16_224.fb_in1k"
    expected = {(name, "imagenet"): (72.19, pytest.approx(72.19))}
    assert ours(page) == (expected if is_imagenet else {})
    if not is_imagenet:
        assert reason(page) == f"the table has no {folder.rpartition('/')[0]}"


def test_a_copy_of_a_released_file_is_that_file(tmp_path: Path) -> None:
    stem = "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0"
    copy = f"/x/{stem}--imagenet2012-steps_20k-lr_0.03-res_384.npz"
    row = (copy, "classification", "imagenet2012/validation", 384, 0.838)
    file = scores_file(tmp_path / "scores.json", row)
    name = "vit_small_patch16_384.augreg_in21k_ft_in1k"
    assert ours(table("timm", [file])) == {(name, "imagenet"): (83.814, pytest.approx(83.8))}
    cell = ("ViT-S/16", "21k 300, 384")
    assert ours(table("augreg", [file])) == {cell: (83.73, pytest.approx(83.8))}


@pytest.mark.parametrize("address", ["gs://", "https://storage.googleapis.com/"])
def test_the_address_of_a_released_file_is_not_asked(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may have been sent; AugReg's index would be downloaded."""
    monkeypatch.setattr(augreg, "fetch", pytest.fail)
    start = f"{address}vit_models/augreg/B_16"
    run = fine_tuned(tmp_path / "run", "pets", 0.9, f"--config.init_from={start}")
    assert "released files of augreg" in reason(table("5", [run]))


def test_scores_of_other_kinds_are_other_scores(tmp_path: Path) -> None:
    """A probe is not the fine-tuned head, and `per_class` gives the top-1 of `classification`."""
    scores = {"test/top1": 0.93, "each/top1": 0.93, "probe/top1": 0.5, "probe/inverse_penalty": 0.1}
    kinds = {"each": "per_class", "probe": "linear_probe"}
    changes = [f"--config.evals.{name}.kind={kind}" for name, kind in kinds.items()]
    changes += [f"--config.evals.{name}.split=test" for name in kinds]
    spec = f"finetune.py:b16,pets,weights={FILE}"
    page = table("5", [str(ended_run(tmp_path / "run", spec, scores, *changes))])
    assert ours(page) == {("imagenet21k", "pets", "ViT-B/16"): (94.43, pytest.approx(93.0))}
    (record,) = [record for record in page.records or () if record["runs"]]
    assert record["runs"] == 1


@pytest.mark.parametrize(
    ("evaluation", "data", "why"),
    [
        ("classification", "imagenet_a/test", "the table has no imagenet_a over all logits"),
        ("imagenet_a_clean", "imagenet2012/validation", "the table has no imagenet_a_clean"),
    ],
)
def test_other_scores_of_imagenet_a_s_classes(
    evaluation: str, data: str, why: str, tmp_path: Path
) -> None:
    row = ("./deit_tiny_patch16_224.pth", evaluation, data, 224, 0.07)
    assert reason(table("timm", [scores_file(tmp_path / "scores.json", row)])) == why


def test_imagenet_a_over_all_logits_is_another_score(tmp_path: Path) -> None:
    row = ("./deit_tiny_patch16_224.pth", "imagenet_a", "./imagenet-a/all", 224, 0.07)
    file = Path(scores_file(tmp_path / "scores.json", row))
    name = "deit_tiny_patch16_224.fb_in1k"
    assert ours(table("timm", [str(file)])) == {(name, "imagenet_a"): (7.213, pytest.approx(7))}
    stated = "top-1 7.00%; ImageNet-A, over all 1,000 logits"
    file.write_text(file.read_text().replace('"text": ""', f'"text": "{stated}"'))
    assert reason(table("timm", [str(file)])) == "the table has no ./imagenet-a"


@pytest.mark.parametrize(
    ("weights", "side", "column", "published"),
    [
        ("augreg/B_16--imagenet2012-res_384", 384, "21k 300, 384", 85.49),
        (
            "augreg/L_16-i21k_30-30ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0"
            "--imagenet2012-steps_20k-lr_0.03-res_224",
            *(224, "21k 30, 224", 82.05),
        ),
        (
            "/x/Ti_16-i1k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0.npz",
            *(224, "1k as is, 224", 72.59),
        ),
    ],
)
def test_the_table_of_augreg(
    tmp_path: Path, weights: str, side: int, column: str, published: float
) -> None:
    row = (weights, "classification", "imagenet2012/validation", side, 0.8)
    (found,) = ours(table("augreg", [scores_file(tmp_path / "scores.json", row)])).items()
    assert found[0][1] == column and found[1] == (published, pytest.approx(80.0))
