"""Names decide whether a head is kept for other data."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_models import SMALL, random_params
from vit_jax.evaluation.heads import head_order, with_head_for
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import Weights, open_weights, write_weights
from vit_jax.weights.load import params_for

NAMES = ("ant", "bee", "cat", "dog", "fox")


@pytest.mark.parametrize(
    ("head", "names", "order"),
    [
        ("abc", "abc", (0, 1, 2)),
        ("abc", "cab", (2, 0, 1)),
        ("abc", "ca", (2, 0, 1)),
        ("abc", "abd", None),
        ("abc", "xyz", None),
        ("aab", "aab", (0, 1, 2)),
        ("aab", "aba", None),
        (("tabby, tabby cat", "tench, Tinca tinca"), ("n01440764", "n02123045"), (1, 0)),
        (("n02123045-tabby", "n01440764-tench"), ("Tinca_tinca", "tabby cat"), (1, 0)),
        # Both mean the first.
        (("tabby, tabby cat", "tench"), ("tabby", "tabby cat"), None),
    ],
)
def test_where_the_data_s_classes_are_in_a_head(head: Any, names: Any, order: Any) -> None:
    assert head_order(tuple(head), tuple(names)) == order


def _weights(path: Path, class_names: tuple[str, ...] | None) -> Weights:
    write_weights(path / "w.npz", random_params(SMALL), SMALL, class_names=class_names)
    return open_weights(path / "w.npz")


def _head(weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    wanted = dataclasses.replace(ModelConfig("ViT-mu/8", image_size=16, depth=2), num_classes=5)
    params, _ = params_for(weights, wanted)
    return np.asarray(params["head"]["kernel"]), np.asarray(params["head"]["bias"])


@pytest.mark.parametrize(
    ("names", "rows"),
    [(NAMES, [0, 1, 2, 3, 4]), (NAMES[::-1], [4, 3, 2, 1, 0]), (("dog", "bee"), [3, 1, 0, 2, 4])],
)
def test_a_head_follows_the_names_of_the_data(tmp_path: Path, names: Any, rows: list[int]) -> None:
    weights = with_head_for(_weights(tmp_path, NAMES), names, 5)
    head = random_params(SMALL)["head"]
    kernel, bias = _head(weights)
    np.testing.assert_array_equal(kernel, head["kernel"][:, rows])
    np.testing.assert_array_equal(bias, head["bias"][rows])
    assert weights.class_names == tuple(NAMES[row] for row in rows)


def test_a_head_of_other_classes_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    weights = with_head_for(_weights(tmp_path, NAMES), ("car", "bus", "van", "tram", "bike"), 5)
    kernel, bias = _head(weights)
    assert not kernel.any() and not bias.any()
    assert "other classes (ant, ...) than the data (car, ...)" in caplog.text


def test_a_head_without_names_is_kept_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = with_head_for(_weights(tmp_path, None), ("car", "bus", "van", "tram", "bike"), 5)
    np.testing.assert_array_equal(_head(weights)[0], random_params(SMALL)["head"]["kernel"])
    assert "nothing names the 5 classes of its head; it is kept" in caplog.text


def test_another_number_of_classes_is_replaced_for_its_shape(tmp_path: Path) -> None:
    weights = _weights(tmp_path, NAMES)
    for num_classes in (2, 7, 0):
        assert with_head_for(weights, ("ant", "bee"), num_classes) is weights
