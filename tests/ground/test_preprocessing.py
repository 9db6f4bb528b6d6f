"""The central crop at other image sizes, as DeiT and timm compute it."""

import dataclasses
import math

import pytest

from tests.small_models import refusal
from vit_jax.preprocessing import PreprocessingConfig, central_crop


@pytest.mark.parametrize(
    ("share", "sides"),
    [
        # DeiT: int(256 / 224 * side).
        (224 / 256, {224: 256, 384: 438, 448: 512, 512: 585, 160: 182}),
        # timm: floor(side / crop_pct).
        (0.9, {224: 248, 384: 426, 448: 497, 256: 284}),
        (0.95, {224: 235, 384: 404, 336: 353}),
        (1.0, {224: 224, 384: 384}),
    ],
)
def test_the_share_is_kept_and_the_side_rounded_down(share: float, sides: dict[int, int]) -> None:
    for old in sides:
        config = PreprocessingConfig(**central_crop(old, share))
        assert config.short_side == sides[old] == math.floor(old / share)
        for new, wanted in sides.items():
            assert config.at(old, new).short_side == wanted
            # By way of a third size, whose side says less.
            assert config.at(old, 225).at(225, new).short_side == wanted


def test_where_only_the_sides_are_known_their_ratio_is_the_share() -> None:
    config = PreprocessingConfig(resize="short_side", short_side=256)
    assert config.at(224, 384).short_side == 438
    assert config.at(224, 448).short_side == 512
    whole = PreprocessingConfig(resize="short_side", short_side=225)
    assert whole.at(224, 32).short_side == 32
    assert whole.at(224, 32).at(32, 224) == whole
    assert PreprocessingConfig().at(224, 384) == PreprocessingConfig()


def test_shares_that_mean_nothing_are_refused() -> None:
    assert "needs short_side" in refusal(PreprocessingConfig, crop_share=0.9)
    sides = PreprocessingConfig(resize="short_side", short_side=256)
    for share in (0.0, -1.0, 1.01, float("nan")):
        assert "crop_share must be above 0" in refusal(dataclasses.replace, sides, crop_share=share)
