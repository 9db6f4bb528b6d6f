"""Weights with the positions of Table 8: written and read, resized, and refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_models import assert_same, random_params, refusal, small_vit
from vit_jax import load_model
from vit_jax.models.functional import abstract_params
from vit_jax.weights.files import open_weights, write_weights
from vit_jax.weights.load import params_for
from vit_jax.weights.transfer import resize_positions

FORMS = (
    *("learned", "learned_layers", "learned_shared"),
    *("learned2d", "learned2d_layers", "learned2d_shared", "relative"),
)


@pytest.mark.parametrize("pooling", ["token", "gap"])
@pytest.mark.parametrize("positions", FORMS)
def test_round_trip(positions: str, pooling: Any, tmp_path: Path) -> None:
    model = small_vit(positions=positions, pooling=pooling, image_size=(16, 24))
    params, path = random_params(model), tmp_path / "weights.npz"
    write_weights(path, params, model)
    opened = open_weights(path)
    assert opened.model == model
    assert_same(opened.params, params)
    # Their names and shapes show the positions too; not the sides of six patches in 1-D.
    path.with_suffix(".json").unlink()
    shown = open_weights(path, (16, 24))
    assert (shown.model.positions, shown.model.grid) == (positions, (2, 3))
    assert "positions" not in shown.assumed
    assert_same(shown.params, params)


@pytest.mark.parametrize("positions", FORMS[:-1])
def test_tables_are_resized(positions: str, tmp_path: Path) -> None:
    """1-D ones as at the stem, table by table; 2-D ones along their one axis."""
    model = small_vit(positions=positions, image_size=(16, 24))
    params, path = random_params(model), tmp_path / "weights.npz"
    write_weights(path, params, model)
    larger = dataclasses.replace(model, image_size=(32, 40))
    found, _ = params_for(open_weights(path), larger)
    wanted = abstract_params(larger)
    prefix = "shared_" if "shared" in positions else ""
    for name in ("pos_embedding", "row_embedding", "column_embedding"):
        trees: list[Any] = [params, found, wanted]
        if positions.endswith("layers"):
            trees = [tree["blocks"] for tree in trees]
        if f"{prefix}{name}" not in trees[0]:
            continue
        old, new, shape = (tree[f"{prefix}{name}"] for tree in trees)
        new = np.asarray(new)
        assert new.shape == shape.shape
        tables = zip(old, new, strict=True) if positions.endswith("layers") else [(old, new)]
        for before, after in tables:
            if name == "pos_embedding":
                expected = resize_positions(before, (2, 3), (4, 5), True)
            else:
                # Linear with aligned corners.
                places = np.linspace(0, len(before) - 1, 4 if name == "row_embedding" else 5)
                expected = np.stack(
                    [np.interp(places, np.arange(len(before)), line) for line in before.T], 1
                )
            np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)


def test_relative_ones_are_not_resized(tmp_path: Path) -> None:
    model = small_vit(positions="relative")
    write_weights(tmp_path / "weights.npz", random_params(model), model)
    assert load_model(weights=tmp_path / "weights.npz").config == model
    message = refusal(load_model, weights=tmp_path / "weights.npz", image_size=32)
    assert "are not resized; use the image size of the weights" in message


def test_another_form_is_refused(tmp_path: Path) -> None:
    model = small_vit(positions="learned2d")
    write_weights(tmp_path / "weights.npz", random_params(model), model)
    message = refusal(load_model, weights=tmp_path / "weights.npz", positions="relative")
    assert "trained with positions=learned2d, the model has relative" in message


@pytest.mark.parametrize("positions", FORMS[1:])
@pytest.mark.parametrize("layout", ["timm", "huggingface"])
def test_other_layouts_have_no_form_for_them(layout: str, positions: str, tmp_path: Path) -> None:
    model = small_vit(positions=positions)
    path = tmp_path / "model.safetensors"
    message = refusal(write_weights, path, random_params(model), model, layout=layout)
    assert f"positions={positions}" in message and "--layout=google" in message
    assert not path.exists()
