"""`predict --embed`: features of images in NumPy and Parquet files."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import vit_jax
from tests.commands.named_photos import MODEL, READABLE, write
from vit_jax.__main__ import main
from vit_jax.inference import embedding
from vit_jax.inference.embedding import Embedded, embed
from vit_jax.inference.features import FeatureConfig, features


def run(weights: Path, photos: Path, output: Path, *flags: str) -> int:
    command = ["predict", f"--weights={weights}", "--images", str(photos), f"--embed={output}"]
    return main([*command, *flags])


def expected(weights: Path, photos: Path, config: FeatureConfig) -> np.ndarray:
    model = vit_jax.load_model(weights=weights)
    return np.asarray(
        features(model, vit_jax.preprocess([photos / n for n in READABLE], model), config)
    )


def read(path: Path) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    """Names of images, features, and what made them."""
    if path.suffix == ".npz":
        with np.load(path) as found:  # Which unpickles nothing.
            assert sorted(found) == ["features", "images", "made_by"]
            return found["images"].tolist(), found["features"], json.loads(found["made_by"].item())
    table = pq.read_table(path)
    assert table.column_names == ["image", "features"]
    column = table["features"].combine_chunks()
    is_tensor = hasattr(column, "to_numpy_ndarray")
    values = column.to_numpy_ndarray() if is_tensor else np.stack(column.to_numpy(False))
    return table["image"].to_pylist(), values, json.loads(table.schema.metadata[b"made_by"])


@pytest.mark.parametrize("name", ["a.npz", "a.parquet"])
@pytest.mark.parametrize(
    ("flags", "config"),
    [
        ([], FeatureConfig()),
        (["--embed.tokens=class", "--embed.blocks=2"], FeatureConfig("class", 2)),
        (["--embed.tokens=mean", "--embed.norm=false"], FeatureConfig("mean", norm=False)),
        (["--embed.tokens=patches", "--batch_size=2"], FeatureConfig("patches")),
    ],
)
def test_features_are_those_of_the_model(
    name: str,
    flags: list[str],
    config: FeatureConfig,
    weights: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(weights, photos, tmp_path / name, *flags) == 0
    images, found, made_by = read(tmp_path / name)
    assert images == [str(photos / each) for each in READABLE]
    wanted = expected(weights, photos, config)
    assert found.dtype == np.float32 and found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert made_by["weights"] == str(weights) and made_by["tokens"] == config.tokens
    assert made_by["blocks"] == config.blocks and made_by["image_size"] == "16x16"
    errors = capsys.readouterr().err
    assert f"left out {photos / 'a.png'}: cannot read" in errors
    assert errors.endswith("4 of 7 images could not be read\n")
    assert os.listdir(tmp_path) == [name]


def test_a_model_needs_no_head(photos: Path, tmp_path: Path) -> None:
    headless = write(tmp_path / "w.npz", dataclasses.replace(MODEL, num_classes=0))
    assert run(headless, photos, tmp_path / "a.npz") == 0
    assert read(tmp_path / "a.npz")[1].shape == (3, 32)


def test_names_that_are_no_text(weights: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    os.symlink(photos / "b.png", os.path.join(os.fsencode(folder), b"\xff\n.png"))
    assert run(weights, folder, tmp_path / "a.npz") == 0
    assert read(tmp_path / "a.npz")[0] == [os.fsdecode(os.fsencode(folder) + b"/\xff\n.png")]
    assert run(weights, folder, tmp_path / "a.parquet") == 0
    assert read(tmp_path / "a.parquet")[0] == [f"{folder}/\\udcff\n.png"]


def test_parquet_without_its_library(
    weights: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert run(weights, photos, tmp_path / "a.parquet") == 2
    error = capsys.readouterr().err
    assert "pip install 'vit_jax[parquet]'" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("a.csv", [], "a.csv: name a .npz or a .parquet file"),
        ("a.npz", ["--output={tmp}/b.csv"], "b.csv would be ignored: --embed writes features"),
        ("a.npz", ["--top_k=3"], "--top_k=3 would be ignored"),
        ("a.npz", ["--embed.token=class"], "embed.token: no such key; did you mean 'tokens'?"),
        ("a.npz", ["--embed.tokens=cls"], "embed.tokens"),
        ("a.npz", ["--embed.tokens=class", "--embed.blocks=3"], "the model has 2 blocks"),
        ("a.npz", ["--embed.blocks=2"], "blocks and norm would be ignored"),
        ("a.npz", ["--batch_size=0"], "batch_size=0 must be at least 1"),
        ("no/a.npz", [], "no/a.npz: No such file or directory; choose another file"),
        ("a.npz", ["--config.seed=1"], "would be ignored"),
    ],
)
def test_mistakes_end_in_one_line(
    name: str,
    flags: list[str],
    message: str,
    weights: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        run(weights, photos, tmp_path / name, *(flag.format(tmp=tmp_path) for flag in flags)) == 2
    )
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert os.listdir(tmp_path) == []


def test_a_stopped_job_starts_anew_and_says_so(
    weights: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "a.npz"

    def stopped(*arguments: Any, **options: Any) -> Iterator[Embedded]:
        yield next(embed(*arguments, **options))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "embed", stopped)
        assert run(weights, photos, output, "--batch_size=2") == 130
    assert f"{output} is not written, and the same command starts anew" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
    for _ in range(2):
        assert run(weights, photos, output) == 0
    assert f"{output} exists, and is computed anew" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["a.npz"]


def test_options_without_embed(
    weights: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", f"--weights={weights}", "--images", str(photos), "--embed.blocks=2"]
    assert main(command) == 2
    assert "'--embed.blocks=2' would be ignored: it needs --embed" in capsys.readouterr().err


def test_images_of_which_none_can_be_read(
    weights: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.npz").write_text("of yesterday")
    assert run(weights, photos / "a.png", tmp_path / "a.npz") == 2
    assert "none of the images can be read" in capsys.readouterr().err
    assert (tmp_path / "a.npz").read_text() == "of yesterday"
    assert os.listdir(tmp_path) == ["a.npz"]
