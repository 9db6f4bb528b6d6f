"""Figures 3 to 5: the published points, and where runs stand."""

import io
import json
import statistics
from pathlib import Path

import pytest
from PIL import Image

from tests.experiments.ended_runs import ended_run
from tests.small_models import refusal
from vit_jax.__main__ import main
from vit_jax.experiments.paper.scaling import Point, ScalingFigure, scaling_figure
from vit_jax.experiments.paper.scaling_picture import draw


def ours(figure: ScalingFigure) -> list[Point]:
    return [point for point in figure.points if point.weights is not None]


def test_the_paper_s_points() -> None:
    """Section 4.4 counts 7 ResNets, 6 ViTs and 5 hybrids; Table 7 prints R50x1's average."""
    panels = scaling_figure("5").panels()
    assert [*panels][:2] == ["Average-5", "imagenet"]
    assert [len(points) for points in panels.values()] == 6 * [18]
    r50 = next(point for point in panels["Average-5"] if point.model == "BiT-R50x1")
    assert (r50.x, round(r50.y, 2)) == (50, 89.33)
    h14 = next(point for point in panels["imagenet"] if point.model == "ViT-H/14")
    assert (h14.x, h14.y) == (4262, 88.08)
    # The ImageNet rows of Table 5; H/14 was not trained on ImageNet.
    images = [point.x for point in scaling_figure("3").points]
    assert [images.count(size) for size in (1_281_167, 14_200_000, 303_000_000)] == [4, 5, 5]
    assert scaling_figure("4").points == ()


def pre_trained(directory: Path, *changes: str, score: str = "test/top1") -> Path:
    """A run of R50x1 on JFT that took 60 exaFLOPs in 5 device-hours."""
    run = ended_run(directory, "pretrain.py:BiT-R50x1,jft", {score: 0.4}, *changes)
    cost = {"device_hours": 5.0, "core_days": 1.0, "images": 1, "exaflops": 60.0}
    (run / "cost.json").write_text(json.dumps(cost))
    return run


def test_fine_tuned_runs_stand_at_the_cost_of_their_pre_training(tmp_path: Path) -> None:
    first = pre_trained(tmp_path / "first")
    scores = {"imagenet": 0.78, "cifar10": 0.98, "cifar100": 0.86, "pets": 0.91, "flowers": 0.94}
    runs = [
        str(ended_run(tmp_path / d, f"finetune.py:BiT-R50x1,{d},weights={first}", {"test/top1": s}))
        for d, s in scores.items()
    ]
    found = ours(scaling_figure("5", runs))
    assert {(p.panel, p.x, round(p.y, 6)) for p in found} == {
        *((data, 60.0, 100 * score) for data, score in scores.items()),
        ("Average-5", 60.0, round(100 * statistics.fmean(scores.values()), 6)),
    }
    (point,) = ours(scaling_figure("5", runs[1:2], "device_hours"))
    assert (point.panel, point.x) == ("cifar10", 5.0)
    (point,) = ours(scaling_figure("3", runs[:1]))
    assert (point.panel, point.x, point.y) == ("imagenet", 303_000_000, 78)


def test_subsets_by_their_images(tmp_path: Path) -> None:
    """Figure 4 has 5-shot accuracies during pre-training; the run of another score has no point."""
    shots = (
        "--config.evals.few.kind=few_shot",
        "--config.evals.few.split=validation",
        "--config.evals.few.dataset=imagenet2012",
    )
    few = "few/top1_5_shot"
    runs = [
        pre_trained(tmp_path / "subset", "--config.data.subset=9000000", *shots, score=few),
        pre_trained(tmp_path / "all", *shots, score=few),
        pre_trained(tmp_path / "none"),
    ]
    figure = scaling_figure("4", map(str, runs))
    assert [(p.panel, p.x, p.y) for p in figure.points] == [
        ("imagenet", 9_000_000, 40),
        ("imagenet", 303_000_000, 40),
    ]
    assert figure.notes == (f"{runs[2]} has no point: it has no top1_5_shot on jft",)
    assert "has no point: the figure's models are pre-trained, then fine-tuned once" in "".join(
        scaling_figure("5", [str(runs[0])]).notes
    )


def test_pictures_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = pre_trained(tmp_path / "run", "--config.data.subset=9000000")
    with Image.open(io.BytesIO(draw(scaling_figure("5", [str(run)]), ".png"))) as image:
        assert image.format == "PNG" and min(image.size) > 800
    assert main(["paper", "--figure=3", f"--output={tmp_path / 'f.json'}"]) == 0
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert rows[0] == {
        "panel": "imagenet",
        "model": "ViT-B/16",
        "x": 1_281_167,
        "y": 77.91,
        "weights": None,
    }
    for flags, message in (
        (["--figure=4", f"--output={tmp_path / 'f.png'}"], "no point to draw; give --runs"),
        (["--table=5", f"--output={tmp_path / 'f.png'}"], "ends with .md, .csv, .json"),
        (["--figure=3", "--compute=exaflops"], "--compute=exaflops would be ignored"),
        (["--figure=5", f"--runs={tmp_path / 'no'}"], "neither the directory of a run"),
    ):
        capsys.readouterr()
        assert main(["paper", *flags]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert "name one of 3, 4, 5" in refusal(scaling_figure, "7")
