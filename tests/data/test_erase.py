import numpy as np
import pytest

from tests.data.pictures import encode, pixels
from vit_jax.data.config import DataConfig
from vit_jax.data.images.erase import random_erase
from vit_jax.data.images.transforms import make_transform
from vit_jax.errors import UserError
from vit_jax.preprocessing import PreprocessingConfig

HEIGHT, WIDTH = 60, 90
# Noise seldom equals it.
IMAGE = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)


def box(found: np.ndarray) -> tuple[slice, slice] | None:
    """Where an image was changed."""
    changed = (found != IMAGE).any(axis=-1)
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    if not changed.any():
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def erased(count: int, probability: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [random_erase(IMAGE, rng, probability) for _ in range(count)]


def test_a_box_becomes_noise_and_nothing_else_changes() -> None:
    values = []
    for found in erased(200):
        assert (found.shape, found.dtype) == (IMAGE.shape, np.uint8)
        place = box(found)
        assert place is not None
        noise = found[place]
        # Every one of 256 values is as likely as 7, in each channel.
        assert (noise == 7).mean() < 0.05
        values.append(noise.reshape(-1, 3))
        rest = found.copy()
        rest[place] = 7
        np.testing.assert_array_equal(rest, IMAGE)
    noise = np.concatenate(values)
    # Uniform on 0 to 255: mean 127.5, variance (256**2 - 1) / 12; channels by themselves.
    assert abs(noise.mean() - 127.5) < 0.5
    assert abs(noise.var() / ((256**2 - 1) / 12) - 1) < 0.01
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.01
    assert (IMAGE == 7).all()


def test_area_and_aspect() -> None:
    places = [place for found in erased(1000) if (place := box(found))]
    height, width = np.array([[p.stop - p.start for p in place] for place in places]).T
    share = height * width / (HEIGHT * WIDTH)
    # A pixel of rounding in sides of 6 and more.
    assert 0.015 < share.min() < 0.03 and 0.31 < share.max() < 0.35
    assert 0.28 < (height / width).min() < 0.32 and 3.1 < (height / width).max() < 3.6
    small = share < 0.15  # None of their aspects is too long for the image: 0.15 / 0.3 < 60 / 90.
    assert abs(np.log(height / width)[small].mean()) < 0.12
    # Uniform: as many in each quarter of the range, 250 with a deviation of 14.
    quarters = np.histogram(share, np.linspace(0.02, 1 / 3, 5))[0]
    assert np.abs(quarters[:2] - 250).max() < 5 * 14


def test_every_place_is_reached() -> None:
    changed = np.mean([(found != IMAGE).any(axis=-1) for found in erased(2000)], axis=0)
    np.testing.assert_allclose(changed, changed[::-1, ::-1], atol=0.07)
    for edge in (changed[0], changed[-1], changed[:, 0], changed[:, -1]):
        assert edge.max() > 0.005


@pytest.mark.parametrize("probability", [0.25, 0.9])
def test_probability(probability: float) -> None:
    share = np.mean([box(found) is not None for found in erased(1000, probability)])
    # A deviation of at most 0.0137.
    assert abs(share - probability) < 4.5 * 0.0137


def test_at_0_nothing_is_drawn() -> None:
    rng = np.random.default_rng(3)
    assert random_erase(IMAGE, rng, 0.0) is IMAGE
    assert rng.random() == np.random.default_rng(3).random()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 2), (8, 8)])
def test_small_images(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    for seed in range(50):
        assert random_erase(image, np.random.default_rng(seed), 1.0).shape == image.shape


def test_it_is_the_last_of_the_hosts_operations() -> None:
    data = encode(pixels(60, 90))
    plain, erasing = (
        make_transform((32, 48), PreprocessingConfig(), DataConfig("./x", erase=erase))
        for erase in (0.0, 1.0)
    )
    for seed in range(5):
        rng = np.random.default_rng(seed)
        expected = random_erase(plain(data, rng), rng, 1.0)
        np.testing.assert_array_equal(erasing(data, np.random.default_rng(seed)), expected)


@pytest.mark.parametrize("erase", [-0.1, 1.1])
def test_what_is_no_probability_is_refused(erase: float) -> None:
    with pytest.raises(UserError, match="erase must be a probability, from 0 to 1, not"):
        DataConfig("./x", erase=erase)
