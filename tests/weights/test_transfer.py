from typing import Any

import jax
import numpy as np
import pytest

from tests.small_models import assert_same, refusal
from vit_jax.weights.stored import lazily
from vit_jax.weights.transfer import adapt_params, resize_patch_embedding, resize_positions


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _vit(
    grid: Any = (4, 4),
    classes: int = 10,
    width: int = 6,
    has_class_token: bool = True,
    pre_logits: int | None = None,
    patch: int = 8,
) -> dict[str, Any]:
    params = {
        "embedding": {"kernel": _random(patch, patch, 3, width), "bias": _random(width)},
        "pos_embedding": _random(1, grid[0] * grid[1] + has_class_token, width),
        "blocks": {"norm1": {"scale": _random(2, width), "bias": _random(2, width)}},
    }
    if classes:
        params["head"] = {"kernel": _random(pre_logits or width, classes), "bias": _random(classes)}
    if has_class_token:
        params["cls"] = _random(1, 1, width)
    if pre_logits:
        params["pre_logits"] = {"kernel": _random(width, pre_logits), "bias": _random(pre_logits)}
    return params


def _adapt(
    params: dict[str, Any],
    target: dict[str, Any],
    old_grid: Any = (4, 4),
    new_grid: Any = (4, 4),
    **options: Any,
) -> tuple[dict[str, Any], list[str]]:
    """Read parameters and notes; they have the target's shapes and types, before and after."""
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), target)
    options = {"has_class_token": "cls" in target, **options}
    stored, notes = adapt_params(params, target, old_grid=old_grid, new_grid=new_grid, **options)
    read = jax.tree.map(np.asarray, stored)

    def check(stored: Any, read: np.ndarray, wanted: Any) -> None:
        assert tuple(stored.shape) == read.shape == wanted.shape
        assert stored.dtype == read.dtype == wanted.dtype

    jax.tree.map(check, stored, read, target)
    return read, notes


def test_what_fits_is_left_as_it_is() -> None:
    params = _vit()
    adapted, notes = _adapt(params, params)
    assert_same(adapted, params)
    assert notes == []


def test_positions_and_head_of_another_task() -> None:
    params, target = _vit(), _vit(grid=(6, 7), classes=3)
    adapted, notes = _adapt(params, target, new_grid=(6, 7))
    expected = resize_positions(params["pos_embedding"], (4, 4), (6, 7), True)
    np.testing.assert_array_equal(adapted.pop("pos_embedding"), expected)
    head = adapted.pop("head")
    assert not head["kernel"].any() and not head["bias"].any()
    del params["pos_embedding"], params["head"]
    assert_same(adapted, params)
    assert sorted(notes) == ["head 10 -> 3 classes, zero-initialised", "positions 4x4 -> 6x7"]


@pytest.mark.parametrize("method", ["aligned", "bicubic_antialiased"])
def test_positions_by_the_wanted_method(method: Any) -> None:
    params, target = _vit(has_class_token=False), _vit(grid=(2, 3), has_class_token=False)
    adapted, _ = _adapt(params, target, new_grid=(2, 3), position_resize=method)
    expected = resize_positions(params["pos_embedding"], (4, 4), (2, 3), False, method)
    np.testing.assert_array_equal(adapted["pos_embedding"], expected)


def test_equal_number_of_positions_on_another_grid() -> None:
    params, target = _vit(grid=(6, 6)), _vit(grid=(4, 9))
    adapted, notes = _adapt(params, target, old_grid=(6, 6), new_grid=(4, 9))
    assert notes == ["positions 6x6 -> 4x9"]
    expected = resize_positions(params["pos_embedding"], (6, 6), (4, 9), True)
    np.testing.assert_array_equal(adapted["pos_embedding"], expected)
    adapted, notes = _adapt(params, target, old_grid=(4, 9), new_grid=(4, 9))
    assert_same(adapted, params)
    assert notes == []


def test_models_without_positions_have_no_grid_to_fit() -> None:
    params, target = _vit(), _vit()
    del params["pos_embedding"], target["pos_embedding"]
    adapted, notes = _adapt(params, target, old_grid=(14, 14), new_grid=(3, 2))
    assert_same(adapted, params)
    assert notes == []


def test_patches_of_another_size() -> None:
    params, target = _vit(patch=8), _vit(patch=12, grid=(3, 3))
    adapted, notes = _adapt(params, target, new_grid=(3, 3))
    assert notes == ["positions 4x4 -> 3x3", "patches 8x8 -> 12x12"]
    expected = resize_patch_embedding(params["embedding"]["kernel"], 12)
    np.testing.assert_array_equal(adapted["embedding"]["kernel"], expected)
    np.testing.assert_array_equal(adapted["embedding"]["bias"], params["embedding"]["bias"])


# The head.


@pytest.mark.parametrize("classes", [10, 3])
def test_representation_layer_goes_with_the_whole_head(classes: int) -> None:
    adapted, notes = _adapt(_vit(pre_logits=5), _vit(classes=classes))
    assert not adapted["head"]["kernel"].any() and not adapted["head"]["bias"].any()
    assert notes == ["pre_logits dropped", f"head 10 -> {classes} classes, zero-initialised"]


def test_representation_layer_stays_where_the_model_has_one() -> None:
    params = _vit(pre_logits=5)
    adapted, notes = _adapt(params, _vit(pre_logits=5, classes=3))
    assert_same(adapted["pre_logits"], params["pre_logits"])
    assert notes == ["head 10 -> 3 classes, zero-initialised"]


def test_a_model_without_a_head_takes_none() -> None:
    params = _vit(pre_logits=5)
    adapted, notes = _adapt(params, _vit(pre_logits=5, classes=0))
    assert notes == ["head of 10 classes dropped"]
    del params["head"]
    assert_same(adapted, params)
    adapted, notes = _adapt(_vit(pre_logits=5), _vit(classes=0))
    assert notes == ["pre_logits dropped", "head of 10 classes dropped"]
    adapted, notes = _adapt(_vit(classes=0), _vit(classes=0))
    assert notes == []


def test_a_file_without_a_head_gets_one_of_zeros() -> None:
    adapted, notes = _adapt(_vit(classes=0), _vit(classes=3))
    assert not adapted["head"]["kernel"].any() and not adapted["head"]["bias"].any()
    assert notes == ["head 0 -> 3 classes, zero-initialised"]


# Refusals.


def test_a_grid_that_the_file_cannot_have_is_an_error() -> None:
    for old_grid, new_grid in (((6, 6), (6, 6)), ((2, 7), (6, 6)), ((5, 5), (4, 4))):
        message = refusal(_adapt, _vit(), _vit(new_grid), old_grid, new_grid)
        assert f"16 positions, which is not a grid of {old_grid[0]}x{old_grid[1]}" in message


def test_all_that_does_not_fit_is_listed_with_both_shapes() -> None:
    params = _vit(has_class_token=False) | {"registers": _random(1, 2, 6)}
    target = _vit(pre_logits=6)
    target["blocks"]["norm1"]["scale"] = _random(3, 6)
    target["pos_embedding"] = _random(1, 17, 8)
    target["embedding"]["kernel"] = _random(16, 16, 1, 6)
    message = refusal(_adapt, params, target)
    for problem in (
        "blocks/norm1/scale: file (2, 6), model (3, 6)",
        "cls: file none, model (1, 1, 6)",
        "embedding/kernel: file (8, 8, 3, 6), model (16, 16, 1, 6)",
        "pos_embedding: file (1, 16, 6), model (1, 17, 8)",
        "pre_logits/bias: file none, model (6,)",
        "pre_logits/kernel: file none, model (6, 6)",
        "registers: file (1, 2, 6), model none",
    ):
        assert problem in message
    assert message.count(": file") == 7


def test_a_head_of_another_width_is_not_replaced_in_silence() -> None:
    params = _vit()
    params["head"]["kernel"] = _random(9, 10)
    message = refusal(_adapt, params, _vit())
    assert "head/kernel: file (9, 10), model (6, 10)" in message


# Types and time of reading.


def test_dtypes_are_the_targets() -> None:
    params = jax.tree.map(lambda leaf: leaf.astype(np.float16), _vit())
    target = _vit(grid=(5, 5), patch=16)
    adapted, _ = _adapt(params, target, new_grid=(5, 5))
    assert {leaf.dtype for leaf in jax.tree.leaves(adapted)} == {np.dtype(np.float32)}
    exact = params["blocks"]["norm1"]["scale"].astype(np.float32)
    np.testing.assert_array_equal(adapted["blocks"]["norm1"]["scale"], exact)


def test_what_the_model_does_not_take_is_never_read() -> None:
    params = _vit(pre_logits=5)
    for layer in ("head", "pre_logits"):
        params[layer] = {
            name: lazily(leaf, lambda x: pytest.fail("read"))
            for name, leaf in params[layer].items()
        }
    adapted, _ = _adapt(params, _vit(classes=3))
    assert "pre_logits" not in adapted
