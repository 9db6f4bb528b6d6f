"""Model sections in the words of version 0.1.0."""

from vit_jax.models.config import ModelConfig
from vit_jax.models.saved import upgrade
from vit_jax.schema import build, to_dict


def test_null_was_inherit_and_absent_was_none() -> None:
    old = {"name": "R50x1", "positions": None, "pooling": None, "gelu": None, "norm_epsilon": 1e-6}
    assert build(ModelConfig, upgrade(old)) == ModelConfig("R50x1", norm_epsilon=1e-6)
    old = {"name": "ViT-B/16", "positions": "absent", "pooling": "gap", "gelu": "exact"}
    expected = ModelConfig(positions="none", pooling="gap", gelu="exact")
    assert build(ModelConfig, upgrade(old)) == expected


def test_a_section_of_today_stays_as_it_is() -> None:
    for config in (ModelConfig(), ModelConfig("Mixer-B/16").completed(), ModelConfig(registers=2)):
        assert upgrade(to_dict(config)) == to_dict(config)


def test_bit_s_root_before_there_was_a_choice() -> None:
    for name in ("BiT-R50x1", "bit_r101x1"):
        old = to_dict(ModelConfig(name))
        del old["root_pool"]
        assert upgrade(old)["root_pool"] == "inf"
    # What a person writes beside a released file names what differs, and no more.
    assert "root_pool" not in upgrade({"name": "BiT-R50x1", "image_size": 160})
    old = to_dict(ModelConfig("R50x1"))
    del old["root_pool"]
    assert "root_pool" not in upgrade(old)
    assert upgrade({"name": 3, "head_bias": 0.0}) == {"name": 3, "head_bias": 0.0}


def test_a_size_is_height_times_width() -> None:
    config = build(ModelConfig, {"image_size": "384x512"})
    assert config.image_size == config.input_size == (384, 512)
    assert build(ModelConfig, {"positions": None}).positions == "none"
