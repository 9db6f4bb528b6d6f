"""Parts of a config that do not go together."""

from tests.small_models import refusal
from vit_jax.config import load_config
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig


def test_a_crop_fits_into_the_resized_image():
    overrides = ("--config.data.crop=resize", "--config.data.crop_side=7")
    assert refusal(build, TrainConfig, load_config("configs/quickstart.py", overrides)) == (
        "config: data.crop_side 7 is below the 8 pixels of model.image_size, so that no crop "
        "fits; raise it"
    )
    overrides = ("--config.data.crop=resize", "--config.data.crop_side=8")
    assert build(TrainConfig, load_config("configs/quickstart.py", overrides)).data.crop_side == 8
