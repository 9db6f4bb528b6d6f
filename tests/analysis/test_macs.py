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
def test_an_image_of_224_pixels_without_head(name, billions):
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
def test_agrees_with_xla(options):
    # Wide, so that norms, softmax and GELU, which XLA counts too, weigh little. Unrolled: XLA
    # counts the body of a loop once.
    size = {"depth": 2, "width": 768, "mlp_dim": 3072, "num_heads": 6} | options
    config = ModelConfig("ViT-B/8", num_classes=2000, scan=False, **size)
    images = jax.ShapeDtypeStruct((2, *config.input_size, 3), jnp.float32)
    lowered = jax.jit(apply_model(config)).lower(abstract_params(config), images)
    flops = 2 * 2 * sum(count_macs(config).values())
    assert lowered.cost_analysis()["flops"] == pytest.approx(flops, rel=0.01)


def test_parameters_by_part():
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
