"""The list of models and released files. Counts are those of the official models and files."""

import re

import pytest

from vit_jax.__main__ import main
from vit_jax.weights.catalogue.names import releases


def _rows(output: str) -> dict[str, list[str]]:
    """Columns by the file's name."""
    lines = [line for line in output.splitlines() if re.match(r" +[\d,-]+ +[\d-]+ ", line)]
    return {line.split()[-1]: line.split()[:4] for line in lines}


def test_lists_every_released_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    output = capsys.readouterr().out
    assert "ViT-B/16,\n" in output
    rows = _rows(output)
    assert rows.keys() == {release.name for release in releases()}
    # The official 86,567,656, with 577 instead of 197 positions of width 768.
    assert rows["imagenet21k+imagenet2012/ViT-B_16"] == ["86,859,496", "384", "1,000", "83.97"]
    # The same, with 21,843 classes and the tanh layer of width 768.
    assert rows["imagenet21k/ViT-B_16"] == ["103,186,515", "224", "21,843", "83.97"]
    # Without class token and its position: the official ViT-B_16-gap-norep.
    assert rows["gsam/ViT-B_16"] == ["86,566,120", "224", "1,000", "-"]
    # A file of 391 MiB of float32.
    name = "augreg/B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
    assert rows[name] == ["102,595,923", "224", "21,843", "85.49"]
    assert round(102_595_923 * 4 / 2**20) == 391


def test_other_families_have_counts_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    rows = _rows(capsys.readouterr().out)
    assert not [name for name, columns in rows.items() if columns[0] == "-"]
    # models_test.py of google-research/vision_transformer.
    assert rows["imagenet1k/Mixer-L_16"][0] == "208,196,168"
    name = "augreg/R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"
    assert rows[name][0] == f"{6_337_704 + 193 * (21_843 - 1000):,}"
    # A file of 3.75 GB of float32, whose resolution is not known; ResNets do not depend on it.
    assert rows["bit/BiT-M-R152x4-ILSVRC2012"][:3] == ["936,533,224", "-", "1,000"]


def test_files_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--filter=gsam"]) == 0
    output = capsys.readouterr().out
    assert len(_rows(output)) == 4
    assert output.startswith("released files")
    assert "augreg/MODEL" not in output


def test_a_filter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--filter=VIT/H-14"]) == 0
    output = capsys.readouterr().out
    assert "  ViT-H/14\n" in output
    assert _rows(output).keys() == {"imagenet21k/ViT-H_14"}
    assert "ViT Table 5, once fine-tuned at 384" in output


def test_models_without_released_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--filter=So400m/14"]) == 0
    assert capsys.readouterr().out == "models\n  ViT-So400m/14\n"


def test_nothing_matches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--filter=resnext"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --filter=resnext: no model")
    assert error.count("\n") == 1
