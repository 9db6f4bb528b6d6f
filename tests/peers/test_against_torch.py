"""Resizing of positions and patches against torch's interpolation and timm's functions."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed

from vit_jax.weights.transfer import resize_patch_embedding, resize_positions

GRIDS = [((14, 14), (24, 24)), ((24, 24), (14, 14)), ((6, 10), (9, 4)), ((7, 7), (7, 20))]
# What torch calls each; "bicubic" is Keys' cubic with -0.5, which torch has with antialiasing only.
# Without it torch has -0.75.
METHODS = {
    "aligned": {"mode": "bilinear", "align_corners": True},
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "bilinear_antialiased": {"mode": "bilinear", "align_corners": False, "antialias": True},
    "bicubic_pytorch": {"mode": "bicubic", "align_corners": False},
    "bicubic_antialiased": {"mode": "bicubic", "align_corners": False, "antialias": True},
}


def _positions(grid: Any, width: int = 8, prefix: int = 1) -> Any:
    shape = (1, math.prod(grid) + prefix, width)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _torch_resized(positions: Any, old: Any, new: Any, **options: Any) -> Any:
    """Resizes positions that follow one of a class token."""
    grid = torch.from_numpy(positions[:, 1:]).reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, new, **options)
    resized = grid.permute(0, 2, 3, 1).reshape(1, -1, positions.shape[-1])
    return np.concatenate([positions[:, :1], resized], axis=1)


@pytest.mark.parametrize(("old", "new"), GRIDS)
@pytest.mark.parametrize("method", METHODS)
def test_positions_as_torch_resizes(method: Any, old: Any, new: Any) -> None:
    positions = _positions(old)
    expected = _torch_resized(positions, old, new, **METHODS[method])
    actual = resize_positions(positions, old, new, True, method)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [((14, 14), (24, 24)), ((7, 5), (7, 20))])
def test_a_growing_grid_needs_no_antialiasing(old: Any, new: Any) -> None:
    positions = _positions(old)
    expected = _torch_resized(positions, old, new, **METHODS["bicubic_antialiased"])
    actual = resize_positions(positions, old, new, True, "bicubic")
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), GRIDS)
@pytest.mark.parametrize("prefix", [0, 1])
def test_positions_as_timm_resizes(old: Any, new: Any, prefix: int) -> None:
    positions = _positions(old, prefix=prefix)
    expected = resample_abs_pos_embed(
        torch.from_numpy(positions), new, old, num_prefix_tokens=prefix
    )
    actual = resize_positions(positions, old, new, bool(prefix), "bicubic_antialiased")
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(16, 32), (32, 16), (16, 8), (14, 16), (16, 14), (3, 5)])
def test_patch_embedding_as_timm_resizes(old: int, new: int) -> None:
    """timm's default is bicubic; FlexiViT's own code, and ours, resizes patches bilinearly."""
    kernel = np.random.default_rng(0).normal(size=(old, old, 3, 6)).astype(np.float32)
    theirs = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    expected = resample_patch_embed(theirs, [new, new], interpolation="bilinear", antialias=False)
    actual = resize_patch_embedding(kernel, new)
    largest = expected.abs().max()
    np.testing.assert_allclose(
        actual, expected.permute(2, 3, 1, 0), rtol=0, atol=1e-4 * float(largest)
    )
