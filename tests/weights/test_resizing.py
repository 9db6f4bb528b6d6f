from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from tests.small_models import refusal
from vit_jax.weights.transfer import resize_patch_embedding, resize_positions


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _zoom(grid: Any, new_grid: Any, mode: str = "constant") -> np.ndarray:
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
def test_resize_equals_scipy(old_grid: Any, new_grid: Any, has_class_token: bool) -> None:
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
def test_last_row_is_the_last_row_where_scipy_rounds_past_it(old: Any, new: Any) -> None:
    positions = _random(1, old * old, 2)
    resized = resize_positions(positions, (old, old), (new, new), False).reshape(new, new, 2)
    grid = positions.reshape(old, old, 2)
    np.testing.assert_array_equal(resized[-1, -1], grid[-1, -1])
    np.testing.assert_allclose(resized, _zoom(grid, (new, new), mode="nearest"), atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 7), (5, 5), (2, 9), (1, 3)])
def test_pytorch_s_cubic(old: int, new: int) -> None:
    """Cubic convolution with a = -0.75, written out; sources beyond the border repeat it."""

    def weight(x: float) -> float:
        x, a = abs(x), -0.75
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0

    line = _random(old, 3)
    expected = np.zeros((new, 3))
    for i in range(new):
        center = (i + 0.5) * old / new - 0.5
        for source in range(-3, old + 3):
            inside = min(max(source, 0), old - 1)
            expected[i] += weight(center - source) * line[inside].astype(np.float64)
    for grids in ((old, 1), (new, 1)), ((1, old), (1, new)):
        actual = resize_positions(line[None], *grids, False, "bicubic_pytorch")
        np.testing.assert_allclose(actual[0], expected, atol=1e-6)


def test_an_unknown_way_to_resize_is_refused() -> None:
    message = refusal(resize_positions, _random(1, 4, 2), (2, 2), (3, 3), False, "bicubic_foo")
    assert "position_resize='bicubic_foo'" in message and "bicubic" in message
    # The grid need not change for it.
    message = refusal(resize_positions, _random(1, 4, 2), (2, 2), (2, 2), False, "cubic")
    assert "position_resize='cubic'" in message


def test_corners_are_kept_and_the_middle_is_the_mean() -> None:
    grid = np.array([[0, 4], [8, 12]], np.float32).reshape(1, 4, 1)
    resized = resize_positions(grid, (2, 2), (3, 3), False).reshape(3, 3)
    np.testing.assert_array_equal(resized, [[0, 2, 4], [4, 6, 8], [8, 10, 12]])


def _pillow(grid: Any, new_grid: Any, filter: Any) -> np.ndarray:
    """Resizes each channel; Pillow always antialiases."""
    height, width = new_grid
    channels = [Image.fromarray(c).resize((width, height), filter) for c in np.moveaxis(grid, 2, 0)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


@pytest.mark.parametrize("has_class_token", [True, False])
@pytest.mark.parametrize(
    ("method", "filter"),
    [
        ("bilinear_antialiased", Image.Resampling.BILINEAR),
        ("bicubic_antialiased", Image.Resampling.BICUBIC),
        # The same where nothing shrinks.
        ("bilinear", Image.Resampling.BILINEAR),
        ("bicubic", Image.Resampling.BICUBIC),
    ],
)
@pytest.mark.parametrize(
    ("old_grid", "new_grid"),
    [((14, 14), (24, 24)), ((4, 6), (9, 8)), ((14, 14), (9, 5)), ((16, 24), (4, 30))],
)
def test_resize_equals_pillow(
    old_grid: Any, new_grid: Any, method: Any, filter: Any, has_class_token: bool
) -> None:
    shrinks = new_grid[0] < old_grid[0] or new_grid[1] < old_grid[1]
    positions = _random(1, old_grid[0] * old_grid[1] + has_class_token, 3)
    resized = resize_positions(positions, old_grid, new_grid, has_class_token, method)
    first = int(has_class_token)
    expected = _pillow(positions[0, first:].reshape(*old_grid, 3), new_grid, filter).reshape(-1, 3)
    difference = np.abs(resized[0, first:] - expected).max()
    if shrinks and "antialiased" not in method:
        assert difference > 0.1
    else:
        assert difference < 1e-5
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized[0, :first], positions[0, :first])


@pytest.mark.parametrize(
    ("old_grid", "new_grid"), [((14, 14), (24, 24)), ((14, 14), (9, 5)), ((16, 24), (4, 30))]
)
def test_half_pixel_bilinear_without_antialias_equals_scipy(old_grid: Any, new_grid: Any) -> None:
    positions = _random(1, old_grid[0] * old_grid[1], 3)
    resized = resize_positions(positions, old_grid, new_grid, False, "bilinear")
    factors = (new_grid[0] / old_grid[0], new_grid[1] / old_grid[1], 1)
    expected = scipy.ndimage.zoom(
        positions.reshape(*old_grid, 3), factors, order=1, mode="nearest", grid_mode=True
    )
    np.testing.assert_allclose(resized[0], expected.reshape(-1, 3), atol=1e-5)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_a_third_of_a_grid_without_antialias_is_every_third_point(method: Any) -> None:
    positions = _random(1, 81, 3)
    resized = resize_positions(positions, (9, 9), (3, 3), False, method)
    expected = positions.reshape(9, 9, 3)[1::3, 1::3].reshape(9, 3)
    np.testing.assert_allclose(resized[0], expected, atol=1e-6)


@pytest.mark.parametrize("method", ["aligned", "bilinear", "bicubic_antialiased"])
def test_constant_positions_stay_constant_and_half_precision_becomes_float32(method: Any) -> None:
    positions = np.full((1, 21, 2), 0.75, np.float16)
    resized = resize_positions(positions, (4, 5), (7, 3), True, method)
    assert resized.dtype == np.float32 and resized.shape == (1, 22, 2)
    np.testing.assert_allclose(resized, 0.75, atol=1e-6)


def test_positions_that_are_not_of_the_grid() -> None:
    positions = _random(1, 25, 4)
    message = refusal(resize_positions, positions, (5, 5), (6, 6), True)
    assert "24 positions, which is not a grid of 5x5" in message


# Patches.


def _answers(patches: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A convolution whose kernel covers the whole patch: [batch, P, P, 3] -> [batch, D]."""
    return np.einsum("bhwc,hwcd->bd", patches, kernel, dtype=np.float64)


@pytest.mark.parametrize(("old", "new"), [(8, 16), (8, 12), (5, 8), (16, 32), (7, 7)])
def test_larger_patches_answer_to_resized_patches_as_before(old: Any, new: Any) -> None:
    kernel, patches = _random(old, old, 3, 4), _random(6, old, old, 3)
    resized = resize_patch_embedding(kernel, new)
    assert resized.shape == (new, new, 3, 4) and resized.dtype == np.float32
    large = np.stack([_pillow(patch, (new, new), Image.Resampling.BILINEAR) for patch in patches])
    answers = _answers(patches, kernel)
    np.testing.assert_allclose(_answers(large, resized), answers, atol=1e-4 * np.abs(answers).max())


def test_smaller_patches_answer_nearest_in_least_squares() -> None:
    kernel = _random(6, 6, 3, 4)
    resized = resize_patch_embedding(kernel, 3)
    # No linear function of shrunken patches is nearer on all unit patches: the residual is
    # orthogonal to every such function.
    # Half the side without antialiasing is the mean of 2 x 2 pixels.
    small = np.eye(36).reshape(36, 3, 2, 3, 2).mean((2, 4)).reshape(36, 9)
    residual = small @ resized.reshape(9, 12) - kernel.reshape(36, 12)
    assert np.abs(small.T @ residual).max() < 1e-5
    assert np.abs(residual).max() > 0.1
