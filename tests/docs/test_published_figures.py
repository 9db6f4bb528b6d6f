"""Published figures that pages and headers repeat for readers, against the data."""

import re

import pytest

from tests.docs.pages import ROOT
from vit_jax.analysis.published import augreg
from vit_jax.analysis.published.grid import Grid
from vit_jax.analysis.published.results import L16_IMAGENET21K, TABLE_2, TABLE_5, UPSTREAM

DATASETS = {
    "ImageNet": "imagenet",
    "CIFAR-10": "cifar10",
    "CIFAR-100": "cifar100",
    "Pets": "pets",
    "Flowers": "flowers",
}


def figures(line: str) -> list[float]:
    """The numbers with two decimals in a line."""
    return [float(number) for number in re.findall(r"\b\d\d\.\d\d\b", line)]


def line_of(page: str, start: str) -> str:
    """The one line of a page with figures that starts so, after blanks and bars."""
    text = (ROOT / page).read_text()
    found = [line for line in text.splitlines() if re.match(rf"[ |]*{start}[ |,]", line)]
    (line,) = [line for line in found if figures(line)]
    return line


def row(grid: Grid, *key: str) -> list[float]:
    """The published numbers of a row."""
    return [figure.value for figure in grid.rows[key] if figure is not None]


@pytest.mark.parametrize("name", DATASETS)
def test_what_fine_tuning_is_expected_to_reach(name: str) -> None:
    expected = row(TABLE_5, "imagenet21k", DATASETS[name])
    assert figures(line_of("configs/finetune.py", name)) == expected
    in_table_2 = TABLE_2.value((DATASETS[name],), L16_IMAGENET21K)
    text = (ROOT / "docs/recipes.md").read_text().split("**Expected on the test set**")[1]
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    assert figures(line) == [*expected, in_table_2]


def test_what_pre_training_is_expected_to_reach() -> None:
    for page, scratch in (
        ("configs/pretrain.py", "ImageNet"),
        ("docs/recipes.md", "ImageNet, from scratch"),
    ):
        assert figures(line_of(page, scratch)) == row(UPSTREAM, "imagenet")
        upstream = line_of(page, "ImageNet-21k, validation")
        assert figures(upstream) == row(UPSTREAM, "imagenet21k")
    tuned = line_of("docs/recipes.md", "ImageNet, then at 384")
    assert figures(tuned) == row(TABLE_5, "imagenet", "imagenet")


def test_what_augreg_is_expected_to_reach() -> None:
    models = [
        *("ViT-Ti/16", "ViT-S/32", "ViT-S/16", "ViT-B/32", "ViT-B/16", "ViT-L/16"),
        *("R+ViT-Ti/16", "R26+ViT-S/32", "R50+ViT-L/32"),
    ]
    for name, column in (
        ("from scratch", augreg.FROM_SCRATCH),
        ("fine-tuned", augreg.FINE_TUNED_384),
    ):
        expected = [augreg.TABLE_3.value((model,), column) for model in models]
        assert figures(line_of("configs/augreg.py", name)) == expected
    page = (ROOT / "docs/recipes.md").read_text()
    for start, column in (
        (r"at 224 pixels, from scratch, the best", augreg.FROM_SCRATCH),
        (r"at 384 pixels \(Table 3", augreg.FINE_TUNED_384),
    ):
        (told,) = re.findall(rf"\*\*Expected on ImageNet\*\* {start}(.*?)\n\n", page, re.DOTALL)
        stated = re.findall(r"([RTiSBL+\d]+/\d\d)\s+(\d\d\.\d\d)", told)
        assert len(stated) == 9
        for model, number in stated:
            *backbone, size = model.split("+")
            name = "+".join([*backbone, f"ViT-{size}"])
            assert float(number) == augreg.TABLE_3.value((name,), column), model


def test_costs_of_pre_training() -> None:
    days = [row(TABLE_2, "TPUv3-core-days")[index] for index in range(3)]
    for page in ("configs/pretrain.py", "docs/recipes.md"):
        text = " ".join((ROOT / page).read_text().split())
        (stated,) = re.findall(
            r"H/14 on JFT-300M ([\d,]+)[,;] L/16(?: on JFT-300M)? (\d+)[,;] L/16 on ImageNet-21k "
            r"(\d+)",
            text,
        )
        assert [float(number.replace(",", "")) for number in stated] == days
