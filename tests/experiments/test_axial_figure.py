"""Figure 13: where runs of axial models and of others stand, by compute and by speed."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.experiments.ended_runs import ended_run
from vit_jax.__main__ import main
from vit_jax.experiments.paper.axial import axial_figure
from vit_jax.experiments.paper.axial_picture import draw

SMALL = ("--config.model.depth=1", "--config.model.width=16", "--config.model.num_heads=2")


def _run(directory: Path, model: str, score: float, *, devices: int, speeds: list[float]) -> Path:
    """A run on the digits with these speeds in its metrics."""
    run = ended_run(directory, f"digits.py:{model}", {"test/top1": score}, *SMALL)
    lines = [{"step": i, "time/images_per_second": speed} for i, speed in enumerate(speeds, 1)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (run / "versions.json").write_text(json.dumps({"devices": devices * ["TPU v3"]}))
    return run


def test_runs_by_flops_and_speed_of_a_device(tmp_path: Path) -> None:
    _run(tmp_path / "axial", "axial", 0.95, devices=4, speeds=[1.0, 400.0, 500.0])
    _run(tmp_path / "vit", "vit", 0.9, devices=1, speeds=[])
    figure = axial_figure([str(tmp_path)])
    axial, vit = figure.points
    assert figure.panels().keys() == {"digits, top-1, %"}
    assert (axial.accuracy, axial.images_per_second, axial.device) == (95.0, 100.0, "TPU v3")
    assert (vit.accuracy, vit.images_per_second) == (90.0, None)
    # A row or column of 4 patches, and a sequence of 16 and the class token.
    width, hidden, tokens = 16, 128, 16
    products = 8 * width**2 + 4 * width * hidden + 2 * width * 8
    # A patch has 12 values; the classes are not known before training.
    assert axial.gflops * 1e9 == pytest.approx(2 * tokens * (products + 12 * width))
    tokens += 1
    products = 4 * width**2 + 2 * width * hidden + 2 * width * tokens
    assert vit.gflops * 1e9 == pytest.approx(2 * (tokens * products + 16 * 12 * width))
    with Image.open(io.BytesIO(draw(figure, ".png"))) as image:
        assert image.format == "PNG" and min(image.size) > 400


def test_the_models_of_the_figure_and_runs_without_a_point(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ended_run(tmp_path / "run", "digits.py:axial", {"test/loss": 0.1})
    output = tmp_path / "f.md"
    assert main(["paper", "--figure=13", f"--runs={run}", f"--output={output}"]) == 0
    text = output.read_text()
    # 33.51 G multiply-adds; those of the plain one with its head are 17.56 G (test_macs.py).
    assert "| AxialViT-B/16 | 67.02 |" in text and "| ViT-B/16 | 35.13 |" in text
    assert "has no point: it has none of the scores top1_5_shot, top1" in text
    picture = tmp_path / "f.png"
    assert main(["paper", "--figure=13", f"--runs={run}", f"--output={picture}"]) == 2
    assert "no point to draw; give --runs" in capsys.readouterr().err.splitlines()[-1]
