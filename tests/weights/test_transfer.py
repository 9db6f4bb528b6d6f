import jax
import numpy as np
import pytest
import scipy.ndimage

from vit_jax.errors import UserError
from vit_jax.weights.transfer import adapt, resize_positions


def _random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _zoom(grid, new_grid, mode="constant"):
    factors = (new_grid[0] / grid.shape[0], new_grid[1] / grid.shape[1], 1)
    return scipy.ndimage.zoom(grid, factors, order=1, mode=mode)


@pytest.mark.parametrize(
    ("old_grid", "new_grid"),
    [
        ((14, 14), (24, 24)),
        ((7, 7), (12, 12)),
        ((24, 24), (14, 14)),
        ((16, 16), (37, 37)),
        ((14, 14), (12, 32)),
        ((4, 6), (9, 5)),
        ((1, 6), (4, 3)),
        ((5, 1), (2, 7)),
        ((6, 6), (1, 9)),
        ((9, 4), (1, 1)),
        ((1, 1), (3, 3)),
    ],
)
@pytest.mark.parametrize("has_class_token", [True, False])
def test_resize_equals_scipy(old_grid, new_grid, has_class_token):
    positions = _random(1, old_grid[0] * old_grid[1] + has_class_token, 8)
    resized = resize_positions(positions, old_grid, new_grid, has_class_token)

    grid = positions[0, int(has_class_token) :].reshape(*old_grid, 8)
    expected = _zoom(grid, new_grid).reshape(-1, 8)
    assert resized.dtype == np.float32
    assert resized.shape == (1, new_grid[0] * new_grid[1] + has_class_token, 8)
    np.testing.assert_allclose(resized[0, int(has_class_token) :], expected, atol=1e-6)
    if has_class_token:
        np.testing.assert_array_equal(resized[0, 0], positions[0, 0])


@pytest.mark.parametrize(("old", "new"), [(24, 22), (24, 42), (16, 30), (8, 26)])
def test_last_row_is_the_last_row_where_scipy_rounds_past_it(old, new):
    positions = _random(1, old * old, 2)
    resized = resize_positions(positions, None, (new, new), False).reshape(new, new, 2)
    grid = positions.reshape(old, old, 2)
    np.testing.assert_array_equal(resized[-1, -1], grid[-1, -1])
    np.testing.assert_allclose(resized, _zoom(grid, (new, new), mode="nearest"), atol=1e-6)


def test_corners_are_kept_and_the_middle_is_the_mean():
    grid = np.array([[0, 4], [8, 12]], np.float32).reshape(1, 4, 1)
    resized = resize_positions(grid, None, (3, 3), False).reshape(3, 3)
    np.testing.assert_array_equal(resized, [[0, 2, 4], [4, 6, 8], [8, 10, 12]])


def test_positions_that_are_no_square_want_a_grid():
    with pytest.raises(UserError, match="24 positions"):
        resize_positions(_random(1, 25, 4), None, (6, 6), True)
    with pytest.raises(UserError, match="24 positions.*5x5"):
        resize_positions(_random(1, 25, 4), (5, 5), (6, 6), True)


def _vit(grid=(4, 4), classes=10, width=6, has_class_token=True, pre_logits=None):
    params = {
        "embedding": {"kernel": _random(8, 8, 3, width), "bias": _random(width)},
        "pos_embedding": _random(1, grid[0] * grid[1] + has_class_token, width),
        "blocks": {"norm1": {"scale": _random(2, width), "bias": _random(2, width)}},
        "head": {"kernel": _random(pre_logits or width, classes), "bias": _random(classes)},
    }
    if has_class_token:
        params["cls"] = _random(1, 1, width)
    if pre_logits:
        params["pre_logits"] = {"kernel": _random(width, pre_logits), "bias": _random(pre_logits)}
    return params


def _shapes(params):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)


def _assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_what_fits_is_left_as_it_is():
    params = _vit()
    adapted, notes = adapt(params, _shapes(params), new_grid=(4, 4), has_class_token=True)
    _assert_equal(adapted, params)
    assert notes == []


def test_positions_and_head_of_another_task():
    params, target = _vit(), _vit(grid=(6, 7), classes=3)
    adapted, notes = adapt(params, _shapes(target), new_grid=(6, 7), has_class_token=True)
    assert jax.tree.map(np.shape, adapted) == jax.tree.map(np.shape, target)
    expected = _zoom(params["pos_embedding"][0, 1:].reshape(4, 4, -1), (6, 7))
    resized = adapted.pop("pos_embedding")
    np.testing.assert_allclose(resized[0, 1:], expected.reshape(42, -1), atol=1e-6)
    head = adapted.pop("head")
    assert not head["kernel"].any() and not head["bias"].any()
    del params["pos_embedding"], params["head"]
    _assert_equal(adapted, params)
    assert sorted(notes) == ["head 10 -> 3 classes, zero-initialised", "positions 4x4 -> 6x7"]


@pytest.mark.parametrize("classes", [10, 3])
def test_representation_layer_goes_with_the_whole_head(classes):
    params, target = _vit(pre_logits=5), _vit(classes=classes)
    adapted, notes = adapt(params, _shapes(target), new_grid=(4, 4), has_class_token=True)
    assert jax.tree.map(np.shape, adapted) == jax.tree.map(np.shape, target)
    assert not adapted["head"]["kernel"].any() and not adapted["head"]["bias"].any()
    assert notes == [f"head 10 -> {classes} classes, zero-initialised", "pre_logits dropped"]


def test_representation_layer_stays_where_the_model_has_one():
    params, target = _vit(pre_logits=5), _vit(pre_logits=5, classes=3)
    adapted, notes = adapt(params, _shapes(target), new_grid=(4, 4), has_class_token=True)
    _assert_equal(adapted["pre_logits"], params["pre_logits"])
    assert notes == ["head 10 -> 3 classes, zero-initialised"]


def test_equal_number_of_positions_on_another_grid():
    params, target = _vit(grid=(6, 6)), _vit(grid=(4, 9))
    adapted, notes = adapt(params, _shapes(target), new_grid=(4, 9), has_class_token=True)
    assert notes == ["positions 6x6 -> 4x9"]
    expected = _zoom(params["pos_embedding"][0, 1:].reshape(6, 6, -1), (4, 9))
    np.testing.assert_allclose(adapted["pos_embedding"][0, 1:], expected.reshape(36, -1), atol=1e-6)
    _, notes = adapt(
        params, _shapes(target), old_grid=(4, 9), new_grid=(4, 9), has_class_token=True
    )
    assert notes == []


def test_non_square_positions_that_fit_need_no_grid():
    params = _vit(grid=(4, 6))
    adapted, notes = adapt(params, _shapes(params), new_grid=(4, 6), has_class_token=True)
    _assert_equal(adapted, params)
    assert notes == []


def test_a_grid_that_the_file_cannot_have_is_an_error():
    target = _shapes(_vit(grid=(6, 6)))
    with pytest.raises(UserError, match="16 positions.*6x6"):
        adapt(_vit(), target, old_grid=(6, 6), new_grid=(6, 6), has_class_token=True)


def test_all_that_does_not_fit_is_listed_with_both_shapes():
    params = _vit(has_class_token=False) | {"registers": _random(1, 2, 6)}
    target = _vit(pre_logits=6)
    target["blocks"]["norm1"]["scale"] = _random(3, 6)
    target["pos_embedding"] = _random(1, 17, 8)
    with pytest.raises(UserError) as error:
        adapt(params, _shapes(target), new_grid=(4, 4), has_class_token=True)
    message = str(error.value)
    for problem in (
        "blocks/norm1/scale: file (2, 6), model (3, 6)",
        "cls: file none, model (1, 1, 6)",
        "pos_embedding: file (1, 16, 6), model (1, 17, 8)",
        "pre_logits/bias: file none, model (6,)",
        "pre_logits/kernel: file none, model (6, 6)",
        "registers: file (1, 2, 6), model none",
    ):
        assert problem in message
    assert message.count(": file") == 6
    assert "\n" not in message


def test_a_head_of_another_width_is_not_replaced_in_silence():
    params, target = _vit(), _vit()
    params["head"]["kernel"] = _random(9, 10)
    with pytest.raises(UserError, match=r"head/kernel: file \(9, 10\), model \(6, 10\)"):
        adapt(params, _shapes(target), new_grid=(4, 4), has_class_token=True)


def test_dtypes_are_the_targets():
    params = jax.tree.map(lambda leaf: leaf.astype(np.float16), _vit())
    adapted, _ = adapt(params, _shapes(_vit()), new_grid=(4, 4), has_class_token=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(adapted)} == {np.dtype(np.float32)}
