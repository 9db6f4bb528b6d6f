"""What the data section refuses."""

from typing import Any

import pytest

from vit_jax.data.config import AffineConfig, DataConfig
from vit_jax.errors import UserError


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"batch_size": 0}, "batch_size must be between 1 and"),
        ({"workers": -1}, "workers must not be negative"),
        ({"crop_area": (0.0, 1.0)}, "crop_area must be"),
        ({"crop_area": (0.5, 0.4)}, "crop_area must be"),
        ({"crop_area": (0.5, 1.1)}, "crop_area must be"),
        ({"crop": "none", "crop_area": (0.2, 1.0)}, "crop_area would be ignored"),
        ({"crop": "resize", "crop_side": 9, "crop_area": (0.2, 1.0)}, "crop_area would be ignored"),
        ({"crop": "resize"}, "crop='resize' needs crop_side, in pixels"),
        ({"crop": "short_side"}, "crop='short_side' needs crop_side, in pixels"),
        ({"crop_side": 256}, "crop_side would be ignored"),
        ({"test_fraction": 1.0}, "test_fraction must be between 0 and 1"),
    ],
)
def test_data_configs_that_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        DataConfig("./x", **options)


@pytest.mark.parametrize(
    "options", [{"rotate": -1}, {"shift": -0.1}, {"scale": -0.1}, {"scale": 1}]
)
def test_affine_configs_that_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="none may be negative, and scale must be below 1"):
        AffineConfig(**options)
