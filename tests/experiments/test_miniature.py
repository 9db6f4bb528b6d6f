"""The miniature: equal costs, shuffled patches, and its page."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.small_models import refusal
from vit_jax.__main__ import main
from vit_jax.analysis.macs import count_macs
from vit_jax.config import load_config
from vit_jax.data.sources.open import open_source
from vit_jax.experiments.miniature.distances import Distances, draw, measure
from vit_jax.experiments.miniature.page import write_page
from vit_jax.experiments.miniature.plan import miniature
from vit_jax.experiments.miniature.shuffled import shuffle_patches
from vit_jax.experiments.studies.running import CellResult, check_study
from vit_jax.experiments.studies.study import Claim, difference
from vit_jax.runs.cost import Cost
from vit_jax.runs.directory import RunDirectory
from vit_jax.schema import build, to_dict
from vit_jax.training.config import TrainConfig


def test_cells_of_the_claims_cost_the_same() -> None:
    """Steps times multiply-adds, within one step; twice for the two that train twice as long."""
    study = miniature("./photos", "cpu")
    cost = {}
    for cell in study.cells:
        config = build(TrainConfig, load_config(cell.config, cell.changes))
        assert config.total_steps is not None
        model = dataclasses.replace(config.model, num_classes=10)
        macs = sum(count_macs(model).values())
        cost[cell.name] = config.total_steps * macs
    base = cost["ViT"]
    for name in ("ViT without positions", "ResNet", "ResNet, patches shuffled", "hybrid"):
        assert cost[name] == pytest.approx(base, rel=0.002), name
    assert cost["ViT, twice the steps"] == 2 * base
    # The head of 10 classes is what masked patches lack.
    both = cost["masked patches"] + cost["ViT after masked patches"]
    assert both == pytest.approx(2 * base, rel=0.01)


def test_all_configs_build() -> None:
    for budget in ("cpu", "gpu"):
        check_study(miniature("digits", budget, steps=10))
    names = {cell.name for cell in miniature("digits", "cpu").cells}
    assert "hybrid" not in names and "ViT, a tenth of the images" not in names
    assert "relative positions" not in names
    gpu = miniature("digits", "gpu")
    forms = {name for cell in gpu.cells for name in cell.changes if "model.positions=" in name}
    assert len(forms) == 7  # Table 8 has eight cells; 1-D at the stem is the ViT.
    texts = [claim.text for claim in gpu.claims]
    assert len({*texts}) == len(texts) and "relative positions are better than none" in texts


def test_patches_change_places_and_nothing_is_lost() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)
    shuffled = shuffle_patches(pixels, 4)
    np.testing.assert_array_equal(shuffled[8], pixels[8])  # Left over.

    def patches(image: np.ndarray) -> list[bytes]:
        return [image[r : r + 4, c : c + 4].tobytes() for r in (0, 4) for c in (0, 4)]

    assert sorted(patches(shuffled)) == sorted(patches(pixels))
    assert patches(shuffled) != patches(pixels)
    # One order for all images.
    other = rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)
    order = [patches(pixels).index(patch) for patch in patches(shuffled)]
    assert [patches(other)[i] for i in order] == patches(shuffle_patches(other, 4))


def test_the_source_of_shuffled_patches(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in "ab":
        (folder / "train" / name).mkdir(parents=True)
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "train" / name / "1.png")
    source = open_source(f"shuffled_patches:2/{folder}", "train")
    plain = open_source(str(folder), "train")
    assert source.class_names == plain.class_names and len(source) == 2
    for index in range(2):
        with Image.open(io.BytesIO(plain[index].image)) as image:
            expected = shuffle_patches(np.asarray(image.convert("RGB")), 2)
        with Image.open(io.BytesIO(source[index].image)) as image:
            np.testing.assert_array_equal(np.asarray(image), expected)
        assert source[index].label == plain[index].label
    assert source.fingerprint() != plain.fingerprint()
    message = refusal(open_source, "shuffled_patches:x/./photos", "train")
    assert "write shuffled_patches:SIDE/DATA" in message


def test_the_page_has_a_verdict_for_each_claim(tmp_path: Path) -> None:
    study = miniature("digits", "cpu")
    first = study.cells[0]
    directory = tmp_path / first.name / "seed=0"
    config = build(TrainConfig, load_config(first.config, first.changes))
    RunDirectory(directory, to_dict(config), writer=True).close()
    cost = Cost(0.5, 0.1, 10, 1e-6)
    scores = {"ViT": (0.8, 0.81, 0.82), "ViT without positions": (0.6, 0.61, 0.62)}
    results = [
        CellResult(cell, scores.get(cell.name, (0.7, 0.8, 0.6)), (), cost) for cell in study.cells
    ]
    heads = np.array([[[1.0, 4.0], [3.0, 5.0]], [[1.2, 4.0], [3.0, 5.0]]])
    claim = Claim("higher layers attend further", "section 4.5", "the last block", "the first")
    distances = Distances({"ViT": heads}, [(claim, difference((4, 4, 4.3), (2.5, 2.6, 2.7)))])
    command = "python -m vit_jax miniature <&>"
    page = write_page(study, results, distances, tmp_path, (0, 1, 2), command)
    text = page.read_text()
    assert text.count("<tr><td>") == len(study.claims) + len(study.cells) + 1
    # sqrt((0.03 + 0.01) / 3) is 0.1155 pixels.
    assert "+1.50 ± 0.23" in text and text.count("<svg") == 2
    # sqrt(2 * 1e-4 / 3) is 0.00816; twice that in points.
    assert '<td class="seen">seen</td>' in text and "+20.00 ± 1.63" in text
    assert "cannot be told here" in text
    assert "miniature &lt;&amp;&gt;" in text and "--config=configs/miniature.py:digits,vit" in text


def test_runs_that_diverged_have_no_distances(tmp_path: Path) -> None:
    study = miniature("digits", "cpu")
    cost = Cost(0.5, 0.1, 10, 1e-6)
    results = [CellResult(cell, (), (0, 1, 2), cost) for cell in study.cells]
    assert measure(results, tmp_path, (0, 1, 2)) == ({}, [])


@pytest.mark.slow
def test_the_command_from_start_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        *("miniature", f"--workdir={tmp_path / 'mini'}", "--seeds=0", "--steps=10"),
        f"--config.data.data_dir={tmp_path / 'data'}",
    ]
    assert main(command) == 0
    assert "positions make a ViT better" in capsys.readouterr().out
    assert (tmp_path / "mini/index.html").is_file()
    assert "higher layers attend further" in (tmp_path / "mini/index.html").read_text()
    facts = json.loads((tmp_path / "mini/ViT/seed=0/weights.json").read_text())
    assert facts["step"] == 10
    assert main(command) == 0
    assert "had ended" in capsys.readouterr().out and main([*command, "--steps=1"]) == 2


def test_the_panels_show_all_points_whole() -> None:
    means = {name: np.array([[[top - 1, top]]]) for name, top in (("ViT", 16.4), ("hybrid", 17.9))}
    for axes in draw(Distances(means, [])).axes:
        # A point of 18 square points of area is 5 points high, and the axes are about 200 high.
        assert axes.get_ylim()[0] == 0 and 17.9 * 1.02 < axes.get_ylim()[1] < 20
