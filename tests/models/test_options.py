"""The keyword arguments of `create_model` and `load_model` as type checkers see them."""

from typing import get_type_hints

from vit_jax.models.config import ModelConfig
from vit_jax.models.options import ModelOptions, NewModelOptions


def test_they_are_the_fields_of_the_config() -> None:
    fields = get_type_hints(ModelConfig)
    assert get_type_hints(NewModelOptions) | {"name": str} == fields
    named = {"name", "image_size", "num_classes"}  # by load_model
    assert get_type_hints(ModelOptions).keys() == fields.keys() - named
