import jax
import numpy as np
import pytest

from vit_jax.analysis.attention_maps import attention_maps, overlay, rollout

# Two blocks of one head over two tokens, (A + 1) / 2 and their product by hand.
FIRST = np.array([[0.5, 0.5], [1.0, 0.0]])
SECOND = np.array([[0.0, 1.0], [0.25, 0.75]])
BY_HAND = np.array([[0.625, 0.375], [0.53125, 0.46875]])


def test_rollout_by_hand() -> None:
    attention = np.stack([FIRST, SECOND])[:, None, None]
    found = rollout(attention)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, BY_HAND[None], rtol=1e-6)


def test_heads_are_averaged_first() -> None:
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.ones(5), (3, 2, 4, 5))
    mean = attention.mean(axis=2, keepdims=True)
    np.testing.assert_allclose(rollout(attention), rollout(mean), rtol=1e-6)
    np.testing.assert_allclose(rollout(attention).sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("registers", [0, 2])
def test_maps_are_of_patches_alone(registers: int) -> None:
    """One block: the class token's row, halved; the largest patch becomes 1."""
    tokens = 1 + 6 + registers
    row = np.arange(1, tokens + 1, dtype=np.float64)
    attention = np.tile(row / row.sum(), (1, 1, 2, tokens, 1))
    (found,) = attention_maps(attention, (2, 3), has_class_token=True)
    np.testing.assert_allclose(found, row[1:7].reshape(2, 3) / 7, rtol=1e-5)


def test_without_class_token_the_patches_are_averaged() -> None:
    attention = np.stack([FIRST, SECOND])[:, None, None]
    (found,) = attention_maps(attention, (1, 2), has_class_token=False)
    shares = BY_HAND.mean(axis=0)
    np.testing.assert_allclose(found, [shares / shares.max()], rtol=1e-6)


def test_a_program_computes_what_the_host_does() -> None:
    attention = np.random.default_rng(0).dirichlet(np.ones(7), (3, 2, 4, 7)).astype(np.float32)
    program = jax.jit(lambda x: attention_maps(x, (2, 3), has_class_token=True))
    found = program(attention)
    assert isinstance(found, jax.Array)
    on_host = attention_maps(attention, (2, 3), has_class_token=True)
    assert isinstance(on_host, np.ndarray)
    np.testing.assert_allclose(found, on_host, rtol=1e-5)


def test_an_overlay_is_darkest_where_attention_is_none() -> None:
    """The corners lie outside the centres of the patches, so bicubic resizing keeps 0 and 1."""
    pixels = np.full((8, 16, 3), 200, np.uint8)
    shown = np.asarray(overlay(pixels, np.array([[0.0, 1.0]])))
    assert shown.shape == pixels.shape
    assert shown[0, 0].tolist() == [30] * 3 and shown[0, -1].tolist() == [200] * 3
