import itertools

import jax
import numpy as np
import pytest

from vit_jax.analysis.attention_distance import attention_distances, grid_distances
from vit_jax.models.config import ModelConfig

ROOT = 2**0.5


def test_distances_of_a_2x2_grid_by_hand() -> None:
    """Patches of 16 pixels: neighbours, and the diagonal."""
    found = grid_distances((2, 2), 16)
    side, across = 16, 16 * ROOT
    by_hand = [
        [0, side, side, across],
        [side, 0, across, side],
        [side, across, 0, side],
        [across, side, side, 0],
    ]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)


def test_a_grid_need_not_be_square() -> None:
    """One row of three."""
    np.testing.assert_allclose(grid_distances((1, 3), 8), [[0, 8, 16], [8, 0, 8], [16, 8, 0]])


def test_uniform_attention_on_a_3x3_grid_by_hand() -> None:
    """The mean over the 81 pairs of nine places.

    By their steps (rows, columns): 24 pairs (0, 1) or (1, 0) of 1, 12 of 2, 16 of sqrt 2, 16 of
    sqrt 5, 4 of 2 sqrt 2, and 9 of 0.
    """
    uniform = np.full((1, 1, 1, 9, 9), 1 / 9)
    by_hand = (24 * 1 + 12 * 2 + 16 * ROOT + 16 * 5**0.5 + 4 * 2 * ROOT) / 81
    found = attention_distances(uniform, (3, 3), 1, has_class_token=False)
    assert found.shape == (1, 1, 1)
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)


def test_heads_by_hand() -> None:
    """One head looks at its own patch, one at the patch opposite, on 2x2 patches of 16 pixels."""
    own, opposite = np.eye(4), np.eye(4)[::-1]
    found = attention_distances(
        np.stack([own, opposite])[None, None], (2, 2), 16, has_class_token=False
    )
    np.testing.assert_allclose(found, [[[0, 16 * ROOT]]], rtol=1e-6)


@pytest.mark.parametrize("registers", [0, 2])
def test_other_tokens_are_left_out_and_the_rest_is_not_normalised(registers: int) -> None:
    """Half of the attention goes to the class token, so the distance is halved."""
    tokens = 1 + 2 + registers
    attention = np.zeros((1, 1, 1, tokens, tokens))
    attention[..., 1, [0, 2]] = attention[..., 2, [0, 1]] = 0.5
    # What class token and registers attend to does not count.
    attention[..., 0, 2] = 1
    attention[..., 3:, 1] = 1
    found = attention_distances(attention, (1, 2), 16, has_class_token=True)
    np.testing.assert_allclose(found, [[[8]]])


def test_axes_are_images_blocks_heads_and_a_program_computes_what_the_host_does() -> None:
    attention = np.random.default_rng(0).dirichlet(np.ones(7), (3, 2, 4, 7)).astype(np.float32)
    found = attention_distances(attention, (2, 3), 16, has_class_token=True)
    assert found.shape == (2, 3, 4) and found.dtype == np.float32
    for block, image, head in itertools.product(range(3), range(2), range(4)):
        total = 0.0
        for asked, seen in itertools.product(range(6), range(6)):
            down, across = asked // 3 - seen // 3, asked % 3 - seen % 3
            weight = attention[block, image, head, 1 + asked, 1 + seen]
            total += weight * 16 * (down**2 + across**2) ** 0.5
        assert found[image, block, head] == pytest.approx(total / 6, rel=1e-5)
    program = jax.jit(lambda x: attention_distances(x, (2, 3), 16, has_class_token=True))
    np.testing.assert_allclose(program(attention), found, rtol=1e-5)


def test_a_hybrid_s_tokens_are_as_far_apart_as_their_part_of_the_image() -> None:
    """Its ResNet takes 16 pixels to a position, and a patch is one position (section 3.1)."""
    config = ModelConfig(name="R50+ViT-B/16", image_size=224).completed()
    found = grid_distances(config.grid, config.patch_size)
    assert found.shape == (196, 196)
    assert found.max() == pytest.approx(13 * 16 * ROOT)
