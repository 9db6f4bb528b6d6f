"""Targets of masked patch prediction, against colours that are known and explicit loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.training.patch_targets import downsized_colours, in_patches, mean_colours


def as_patch(pixels: np.ndarray) -> jnp.ndarray:
    """One patch of one image: [side, side, 3] -> [1, 1, side, side, 3]."""
    return jnp.asarray(pixels, jnp.uint8)[None, None]


def test_each_of_512_colours_has_its_class() -> None:
    levels = np.stack(np.meshgrid(*3 * [np.arange(8)], indexing="ij"), axis=-1).reshape(512, 3)
    # The lowest, the middle and the highest value of each level.
    for value in (0, 16, 31):
        patches = np.broadcast_to((32 * levels + value)[None, :, None, None], (1, 512, 16, 16, 3))
        found = mean_colours(jnp.asarray(patches, jnp.uint8))
        np.testing.assert_array_equal(found[0, :, 0], np.arange(512))


@pytest.mark.parametrize("side", [2, 14, 16, 32])
def test_a_mean_just_below_a_border_is_in_the_lower_level(side: int) -> None:
    for border in range(32, 256, 32):
        pixels = np.full((side, side, 3), border)
        assert mean_colours(as_patch(pixels)).item() == border // 32 * 73  # 64 + 8 + 1
        pixels[0, 0] -= 1
        assert mean_colours(as_patch(pixels)).item() == (border // 32 - 1) * 73


# Cells of a side of 14, by hand: from floor(3.5 i) to ceil(3.5 (i + 1)).
CELLS = {14: ((0, 4), (3, 7), (7, 11), (10, 14)), 16: ((0, 4), (4, 8), (8, 12), (12, 16))}


@pytest.mark.parametrize("side", CELLS)
def test_targets_equal_explicit_loops(side: int) -> None:
    rng = np.random.default_rng(0)
    rows, columns = 2, 3
    # What is left over at the bottom and right belongs to no patch.
    images = rng.integers(0, 256, (2, rows * side + 5, columns * side + 1, 3), dtype=np.uint8)
    patches = in_patches(jnp.asarray(images), (rows, columns), side)
    means, downsized = mean_colours(patches), downsized_colours(patches)
    for image in range(2):
        for row in range(rows):
            for column in range(columns):
                area = images[image, row * side :, column * side :][:side, :side].astype(float)
                number = row * columns + column
                assert means[image, number, 0] == _class_of(area)
                expected = [
                    _class_of(area[a:b, c:d]) for a, b in CELLS[side] for c, d in CELLS[side]
                ]
                np.testing.assert_array_equal(downsized[image, number], expected)


def _class_of(area: np.ndarray) -> int:
    red, green, blue = np.floor(area.mean(axis=(0, 1)) / 32).astype(int)
    return int(64 * red + 8 * green + blue)
