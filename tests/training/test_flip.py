import jax
import numpy as np

from vit_jax.preprocessing import PreprocessingConfig, normalize
from vit_jax.training.mix import random_flip

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), np.uint8)


def test_normalize_is_the_papers_range_by_default() -> None:
    found = normalize(IMAGES, PreprocessingConfig())
    assert (found.shape, found.dtype) == (IMAGES.shape, np.float32)
    # The paper's code: (value - 127.5) / 127.5.
    np.testing.assert_allclose(found, (IMAGES - 127.5) / 127.5, atol=2e-7)
    ends = normalize(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1), PreprocessingConfig())
    assert ends[:, 0, 0].tolist() == [[-1] * 3, [1] * 3]


def test_normalize_by_channel() -> None:
    # ImageNet's mean and deviation, as torchvision applies them.
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = jax.jit(normalize, static_argnums=1)(IMAGES, PreprocessingConfig(mean=mean, std=std))
    exact = (IMAGES / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(found, exact, atol=1e-6)


def test_a_flip_is_an_exact_mirror_or_nothing() -> None:
    flipped = np.asarray(random_flip(jax.random.key(0), IMAGES))
    mirrored = [bool((a == b[:, ::-1]).all()) for a, b in zip(flipped, IMAGES, strict=True)]
    same = [bool((a == b).all()) for a, b in zip(flipped, IMAGES, strict=True)]
    assert [not m for m in mirrored] == same
    assert flipped.dtype == np.uint8


def test_flips_are_a_function_of_the_key() -> None:
    first, again, other = (random_flip(jax.random.key(k), IMAGES) for k in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


def test_half_of_the_images_are_flipped_each_on_its_own() -> None:
    images = np.broadcast_to(np.array([0, 1], np.uint8).reshape(1, 1, 2, 1), (64, 1, 2, 1))
    flip = jax.jit(jax.vmap(random_flip, in_axes=(0, None)))
    flips = np.asarray(flip(jax.random.split(jax.random.key(0), 200), images))[:, :, 0, 0, 0]
    # 12,800 draws: deviation 0.0044. Sums over 64 images: variance 16 if independent.
    assert abs(flips.mean() - 0.5) < 5 * 0.0044
    assert 16 * 0.6 < flips.sum(axis=1).var() < 16 * 1.5
    # Each place of the batch by itself, 200 draws: deviation 0.035.
    assert np.abs(flips.mean(axis=0) - 0.5).max() < 5 * 0.035
