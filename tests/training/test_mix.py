import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError
from vit_jax.training.mix import apply_mix, draw_mix

ROWS, HEIGHT, WIDTH = 6, 10, 14


def batch(weights: Any = (1,) * ROWS) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (ROWS, HEIGHT, WIDTH, 3), np.uint8),
        "labels": np.arange(ROWS, dtype=np.int32),
        "weights": np.array(weights, np.float32),
    }


@functools.cache
def _paired(mixup: float, cutmix: float) -> Any:
    return jax.jit(functools.partial(draw_mix, mixup=mixup, cutmix=cutmix))


def paired(seed: int, mixup: float = 0.0, cutmix: float = 0.0, **options: Any) -> dict[str, Any]:
    return jax.device_get(_paired(mixup, cutmix)(jax.random.key(seed), batch(**options)))


def draws(count: int, mixup: float = 0.0, cutmix: float = 0.0, size: Any = (HEIGHT, WIDTH)) -> Any:
    """`ratio`, `box` and `share` of the first row in so many steps."""
    images = {"images": jnp.zeros((2, *size, 3)), "labels": jnp.zeros(2), "weights": jnp.ones(2)}

    def step(key: Any) -> Any:
        found = draw_mix(key, images, mixup=mixup, cutmix=cutmix)
        return {name: found[name][0] for name in ("ratio", "box", "share")}

    keys = jax.random.split(jax.random.key(0), count)
    return jax.device_get(jax.jit(jax.vmap(step))(keys))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_the_partner_is_the_row_before(mixup: float, cutmix: float) -> None:
    before, after = batch(), paired(0, mixup, cutmix)
    np.testing.assert_array_equal(after["partner_labels"], [5, 0, 1, 2, 3, 4])
    np.testing.assert_array_equal(after["partner_images"][1:], before["images"][:-1])
    np.testing.assert_array_equal(after["partner_images"][0], before["images"][-1])
    assert after["partner_images"].dtype == np.uint8
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
    # One draw for all rows.
    assert len(np.unique(after["share"])) == len(np.unique(after["box"], axis=0)) == 1


def test_labels_may_have_several_columns() -> None:
    several = batch() | {"labels": np.arange(2 * ROWS).reshape(ROWS, 2)}
    found = draw_mix(jax.random.key(0), several, mixup=0.2, cutmix=0.0)["partner_labels"]
    np.testing.assert_array_equal(found, np.roll(several["labels"], 1, axis=0))


def test_mixup_is_the_weighted_mean_of_two_images() -> None:
    for seed in range(5):
        found = paired(seed, mixup=0.8)
        share = found["share"][0]
        images = batch()["images"].astype(np.float64)
        expected = share * images + (1 - share) * np.roll(images, 1, axis=0)
        mixed = apply_mix(found)
        assert (mixed.shape, mixed.dtype) == (images.shape, np.float32)
        np.testing.assert_allclose(mixed, expected, atol=1e-4)


def test_cutmix_pastes_a_box_of_which_the_share_is_told() -> None:
    shares = set()
    for seed in range(20):
        found = paired(seed, cutmix=1.0)
        images, mixed = batch()["images"], np.asarray(apply_mix(found))
        partners = np.roll(images, 1, axis=0)
        is_own, is_partners = ((mixed == x).all(axis=-1) for x in (images, partners))
        assert (is_own | is_partners).all()
        top, left, bottom, right = found["box"][0]
        inside = np.zeros((HEIGHT, WIDTH), bool)
        inside[top:bottom, left:right] = True
        np.testing.assert_array_equal(is_partners, np.broadcast_to(inside, is_own.shape))
        np.testing.assert_allclose(found["share"], is_own.mean(axis=(1, 2)), rtol=1e-6)
        shares.add(float(found["share"][0]))
    assert len(shares) > 10


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_a_row_whose_partner_does_not_count_stays_as_it_is(mixup: float, cutmix: float) -> None:
    for seed in range(4):
        found = paired(seed, mixup, cutmix, weights=(1, 1, 0, 1, 0, 1))
        whole = paired(seed, mixup, cutmix)
        alone = np.array([0, 0, 0, 1, 0, 1], bool)
        np.testing.assert_array_equal(found["share"][alone], 1)
        np.testing.assert_array_equal(found["share"][~alone], whole["share"][~alone])
        mixed = np.asarray(apply_mix(found))
        np.testing.assert_array_equal(mixed[alone], batch()["images"][alone])
        np.testing.assert_array_equal(mixed[~alone], np.asarray(apply_mix(whole))[~alone])


@pytest.mark.parametrize("concentration", [0.2, 1.0])
def test_mixups_ratio_is_the_larger_part_of_a_beta_draw(concentration: float) -> None:
    found = draws(4000, mixup=concentration)
    np.testing.assert_array_equal(found["share"], found["ratio"])
    assert not found["box"].any()
    assert found["share"].min() >= 0.5 and found["share"].max() <= 1
    # The variance of Beta(a, a), which is even about 1/2: 1 / (4 (2 a + 1)).
    squares = (found["share"] - 0.5) ** 2
    variance = 1 / (4 * (2 * concentration + 1))
    assert abs(squares.mean() - variance) < 5 * squares.std() / 4000**0.5


def test_cutmixs_boxes() -> None:
    height, width = 200, 300
    found = draws(4000, cutmix=1.0, size=(height, width))
    top, left, bottom, right = found["box"].T
    assert (found["ratio"] == 1).all()
    assert (top >= 0).all() and (top <= bottom).all() and (bottom <= height).all()
    assert (left >= 0).all() and (left <= right).all() and (right <= width).all()
    np.testing.assert_allclose(
        found["share"], 1 - (bottom - top) * (right - left) / (height * width), atol=1e-6
    )
    # A box of side s, as a share, about a uniform centre keeps s (1 - s / 4) of each side, and
    # under Beta(1, 1), where s^2 is uniform, its mean area is
    # E[s^2 (1 - s / 4)^2] = 1 / 2 - (1 / 2) (2 / 5) + (1 / 16) (1 / 3) = 0.32083.
    assert abs(1 - found["share"].mean() - 0.32083) < 5 * found["share"].std() / 4000**0.5 + 0.005
    # The box has the image's aspect where it is not clipped.
    whole = (top > 0) & (left > 0) & (bottom < height) & (right < width)
    assert whole.sum() > 500
    np.testing.assert_allclose(
        (right - left)[whole] * height, (bottom - top)[whole] * width, atol=2 * width
    )


def test_with_both_each_step_draws_one_of_them() -> None:
    found = draws(2000, mixup=0.8, cutmix=1.0)
    is_cut = (found["ratio"] == 1) & (found["box"] != 0).any(axis=-1)
    is_mixed = (found["ratio"] < 1) & (found["box"] == 0).all(axis=-1)
    # Boxes of less than two pixels hold none.
    assert (is_cut | is_mixed).mean() > 0.9
    # A deviation of 22.
    assert abs(is_mixed.sum() - 1000) < 5 * 22


def test_a_step_is_a_function_of_its_key() -> None:
    for options in ({"mixup": 0.8}, {"cutmix": 1.0}):
        first, again, other = (paired(seed, **options) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first["share"], again["share"])
        np.testing.assert_array_equal(first["box"], again["box"])
        assert first["share"][0] != other["share"][0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mixup": -0.1}, "mixup=-0.1, cutmix=0.0: neither may be negative; 0 is off"),
        ({"cutmix": -1.0}, "mixup=0.0, cutmix=-1.0: neither may be negative; 0 is off"),
        ({"mixup": 0.2, "batch_size": 1}, "they need batch_size above 1"),
        ({"cutmix": 0.2, "batch_size": 1}, "they need batch_size above 1"),
    ],
)
def test_configs_that_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        DataConfig("./x", **options)
