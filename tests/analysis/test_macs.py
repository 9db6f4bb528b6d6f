import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from vit_jax.analysis.macs import count_macs, count_params
from vit_jax.models import ModelConfig
from vit_jax.models.functional import abstract_params, apply_model


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("ViT-Ti/16", 1.25),
        ("ViT-S/32", 1.14),
        ("ViT-S/16", 4.60),
        ("ViT-B/32", 4.41),
        ("ViT-B/16", 17.56),
        ("ViT-B/8", 78.15),
        ("ViT-L/32", 15.38),
        ("ViT-L/16", 61.55),
        ("ViT-H/14", 167.29),
    ],
)
def test_an_image_of_224_pixels_without_head(name: str, billions: float) -> None:
    # The encoder's closed form, 4 T D^2 + 2 T^2 D + 2 T D MLP a block, and the patches.
    macs = count_macs(ModelConfig(name))
    assert "head" not in macs
    assert sum(macs.values()) / 1e9 == pytest.approx(billions, abs=0.005)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": (64, 96), "representation_size": 512},
        {"image_size": 64, "pooling": "attention", "registers": 4, "depth": 1},
        {"image_size": 70, "pooling": "gap"},
    ],
    ids=lambda options: options.get("pooling", "token"),
)
def test_agrees_with_xla(options: Any) -> None:
    # Wide, so that norms, softmax and GELU, which XLA counts too, weigh little. Unrolled: XLA
    # counts the body of a loop once.
    size = {"depth": 2, "width": 768, "mlp_dim": 3072, "num_heads": 6} | options
    config = ModelConfig("ViT-B/8", num_classes=2000, scan=False, **size)
    images = jax.ShapeDtypeStruct((2, *config.input_size, 3), jnp.float32)
    lowered = jax.jit(apply_model(config)).lower(abstract_params(config), images)
    flops = 2 * 2 * sum(count_macs(config).values())
    assert lowered.cost_analysis()["flops"] == pytest.approx(flops, rel=0.01)


# Table 6: exaFLOPs of 303M images an epoch, as 6 times the multiply-adds of one.
@pytest.mark.parametrize(
    ("name", "epochs", "exaflops"),
    [
        ("R50x1", 7, 50),
        ("R50x2", 7, 199),
        ("R101x1", 7, 96),
        ("R152x1", 7, 141),
        ("R152x2", 7, 563),
        ("R152x2", 14, 1126),
        ("R200x3", 14, 3306),
        ("R50+ViT-B/32", 7, 106),
        ("R50+ViT-B/16", 7, 274),
        ("R50+ViT-L/32", 7, 246),
        ("R50+ViT-L/16", 14, 1668),
    ],
)
def test_exaflops_of_table_6(name: str, epochs: int, exaflops: int) -> None:
    macs = sum(count_macs(ModelConfig(name)).values())
    assert 6 * macs * 303e6 * epochs / 1e18 == pytest.approx(exaflops, rel=0.015)


def test_both_orders_of_units_cost_the_same() -> None:
    for size in ({}, {"image_size": (100, 65)}):
        post, pre = (count_macs(ModelConfig(f"{p}R50x1", **size)) for p in ("", "BiT-"))
        assert sum(post.values()) == pytest.approx(sum(pre.values()), rel=0.01)


# Wide, and with more images than positions, for the standardisation of kernels counts once a batch.
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("R50x1", {"stages": (1, 2), "width_factor": 6.0, "image_size": (64, 47)}),
        ("BiT-R50x1", {"stages": (1, 2), "width_factor": 6.0, "image_size": (64, 47)}),
        ("R50+ViT-B/8", {"stages": (1, 1), "width_factor": 6.0, "image_size": 40, "depth": 1}),
        ("R+ViT-B/8", {"width_factor": 8.0, "image_size": 64, "depth": 2, "num_heads": 6}),
        ("Mixer-B/8", {"image_size": (64, 96), "depth": 2}),
        ("AxialViT-B/8", {"image_size": (64, 96), "depth": 2, "num_heads": 6}),
    ],
)
def test_other_families_agree_with_xla(name: Any, options: Any) -> None:
    config = ModelConfig(name, num_classes=2000, **options)
    if config.family != "resnet":
        config = dataclasses.replace(config, scan=False)
    images = jax.ShapeDtypeStruct((256, *config.input_size, 3), jnp.float32)
    lowered = jax.jit(apply_model(config)).lower(abstract_params(config), images)
    flops = 2 * 256 * sum(count_macs(config).values())
    assert lowered.cost_analysis()["flops"] == pytest.approx(flops, rel=0.01)


def test_parameters_of_a_backbone_by_part() -> None:
    counts = count_params(ModelConfig("R50+ViT-B/16", num_classes=1000))
    assert counts["backbone/root"] == 7 * 7 * 3 * 64
    # Three units of convolutions 1x1, 3x3 and 1x1, their norms, and the first one's projection.
    unit = 9 * 64**2 + 64 * 256 + 4 * 64 + 2 * 256
    projection = 64 * 256 + 2 * 256
    assert counts["backbone/stage1"] == 3 * unit + 64 * 64 + 2 * 256 * 64 + projection
    assert sum(counts.values()) == 98_659_112
    macs = count_macs(ModelConfig("R50+ViT-B/16", num_classes=1000))
    assert macs.keys() <= counts.keys()
    assert macs["embedding"] == 14 * 14 * 1024 * 768


def test_parameters_by_part() -> None:
    # Ti/16 at 224 pixels with 1000 classes: 5,717,416 in all.
    counts = count_params(ModelConfig("ViT-Ti/16", num_classes=1000))
    assert counts == {
        "embedding": 16 * 16 * 3 * 192 + 192,
        "cls": 192,
        "pos_embedding": 197 * 192,
        "blocks": 12 * (4 * (192 * 192 + 192) + 2 * 192 * 768 + 192 + 768 + 4 * 192),
        "norm": 2 * 192,
        "head": 192 * 1000 + 1000,
    }
    assert sum(counts.values()) == 5_717_416
