"""ResNets, and hybrids where they differ from plain ViTs; parity is in `test_parity.py`."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from tests.small_models import Seen, random_params, refusal
from vit_jax import create_model
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params, apply_model, init_params
from vit_jax.models.placement import OneDevice
from vit_jax.models.resnet import Backbone, StandardizedConv

# 32 channels at the root, a group each; the second stage has a stride, the first one two units.
POST = ModelConfig("R50x1", image_size=32, num_classes=5, stages=(2, 1), width_factor=0.5)
PRE = dataclasses.replace(POST, name="BiT-R50x1")
HYBRID = ModelConfig("R50+ViT-mu/8", image_size=32, num_classes=5, stages=(1, 1), width_factor=0.5)
FAMILIES = pytest.mark.parametrize("model", [POST, PRE, HYBRID], ids=lambda model: model.name)
ORDERS = pytest.mark.parametrize("model", [POST, PRE], ids=["post", "pre"])


@functools.cache
def _images(side: int = 32, batch: int = 2) -> Any:
    return np.random.default_rng(1).uniform(-1, 1, (batch, side, side, 3)).astype(np.float32)


@functools.cache
def _logits(model: Any) -> Any:
    return np.asarray(jax.jit(apply_model(model))(random_params(model), _images()))


def _count(name: str, **options: Any) -> Any:
    params = abstract_params(ModelConfig(name, num_classes=1000, **options))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # models_test.py of google-research/vision_transformer, at 224 pixels and 1000 classes.
        ("R+ViT-Ti/16", 6_337_704),
        ("R26+ViT-S/32", 36_431_912),
        ("R26+ViT-B/32", 101_383_976),
        ("R50+ViT-B/16", 98_659_112),
        ("R50+ViT-L/32", 328_994_856),
        # torchvision's resnet50, resnet101 and resnet152: batch norms have as many as group norms.
        ("R50x1", 25_557_032),
        ("R101x1", 44_549_160),
        ("R152x1", 60_192_808),
    ],
)
def test_parameter_counts(name: str, count: int) -> None:
    assert _count(name) == count


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        # param_count in timm's results-imagenet.csv, of resnetv2_50x1_bit and so on, which are the
        # released files.
        ("BiT-R50x1", 25.55),
        ("BiT-R50x3", 217.32),
        ("BiT-R101x1", 44.54),
        ("BiT-R101x3", 387.93),
        ("BiT-R152x2", 236.34),
        ("BiT-R152x4", 936.53),
    ],
)
def test_parameter_counts_of_bit(name: str, millions: float) -> None:
    assert _count(name) / 1e6 == pytest.approx(millions, abs=0.005)


def test_a_hybrid_s_tokens() -> None:
    # The fourth stage's units are in the third, or there are four stages; R+Ti/16 is stride 32.
    for name, side, tokens in [
        ("R50+ViT-B/16", 224, 197),
        ("R50+ViT-B/16", 384, 577),
        ("R50+ViT-L/32", 224, 50),
        ("R26+ViT-S/32", 384, 145),
        ("R+ViT-Ti/16", 224, 50),
        ("R+ViT-Ti/16", 384, 145),
    ]:
        config = ModelConfig(name, image_size=side, num_classes=10)
        assert config.sequence_length == tokens
        assert abstract_params(config)["pos_embedding"].shape[1] == tokens


# Initial values


@FAMILIES
def test_initial_values(model: Any) -> None:
    params = traverse_util.flatten_dict(init_params(model, 0), sep="/")
    assert not params["head/kernel"].any() and not params["head/bias"].any()
    for path, leaf in params.items():
        if not path.startswith("backbone/"):
            continue
        if path.endswith("bias"):
            assert not leaf.any(), path
        elif path.endswith("scale"):
            starts_at_zero = path.endswith("norm3/scale") and model.activation_order == "post"
            assert (leaf == (0 if starts_at_zero else 1)).all(), path
        else:
            # LeCun: 1 / sqrt(inputs).
            inputs = math.prod(leaf.shape[:3])
            assert leaf.std() == pytest.approx(1 / math.sqrt(inputs), rel=0.1), path
    kernels = [v.tobytes() for k, v in params.items() if "backbone" in k and k.endswith("kernel")]
    assert len(set(kernels)) == len(kernels)


def test_a_unit_starts_as_the_identity() -> None:
    # The first unit of the first stage gives what is positive, and the second changes none of it.
    one = dataclasses.replace(POST, stages=(1,))
    two = dataclasses.replace(POST, stages=(2,))
    params = init_params(two, 0)
    fewer = jax.tree.map(lambda x: x, params)
    del fewer["backbone"]["stage1"]["unit2"]
    features = [
        apply_model(dataclasses.replace(model, num_classes=0))(
            {"backbone": p["backbone"]}, _images()
        )
        for model, p in ((one, fewer), (two, params))
    ]
    assert np.abs(features[0]).max() > 0.1
    np.testing.assert_allclose(*features, rtol=1e-5)


# Standardised convolutions


@pytest.mark.parametrize("name", ["R50x1", "BiT-R50x1"])
@pytest.mark.parametrize(("side", "stride"), [(6, 1), (6, 2), (5, 2)])
def test_a_standardised_convolution(name: Any, side: Any, stride: Any) -> None:
    config = dataclasses.replace(POST, name=name).completed()
    conv = StandardizedConv(config, 2, 4, 3, stride, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    kernel = rng.normal(3, 2, (3, 3, 2, 4)).astype(np.float32)
    conv.kernel[...] = kernel
    x = rng.normal(size=(1, side, side, 2)).astype(np.float32)
    actual = np.asarray(conv(x))
    filters = kernel.reshape(-1, 4)
    filters = ((filters - filters.mean(0)) / filters.std(0)).reshape(kernel.shape)
    # SAME pads by 1 on both sides, and with stride 2 on an even side only at the end.
    before = 0 if name == "R50x1" and stride == 2 and side % 2 == 0 else 1
    padded = np.pad(x[0], [(before, 2), (before, 2), (0, 0)])
    outputs = -(-side // stride)
    assert actual.shape == (1, outputs, outputs, 4)
    for row in range(outputs):
        for column in range(outputs):
            rows, columns = (slice(i * stride, i * stride + 3) for i in (row, column))
            expected = np.einsum("hwi,hwio->o", padded[rows, columns], filters)
            np.testing.assert_allclose(actual[0, row, column], expected, rtol=1e-3, atol=1e-4)


@FAMILIES
def test_the_scale_of_a_kernel_does_not_matter(model: Any) -> None:
    params = random_params(model)

    def scaled(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        is_convolution = name.startswith("backbone/") and name.endswith("kernel")
        return leaf * np.float32(10) if is_convolution else leaf

    tenfold = jax.tree_util.tree_map_with_path(scaled, params)
    moved = np.asarray(jax.jit(apply_model(model))(tenfold, _images())) - _logits(model)
    assert np.abs(_logits(model)).max() > 1
    assert np.abs(moved).max() < 1e-3


@pytest.mark.parametrize(("root_pool", "border"), [("zeros", 0.0), ("inf", -np.inf)])
@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_the_maximum_of_bit_s_root(root_pool: Any, border: float, size: Any) -> None:
    """Zeros as in big_transfer's own code, where a window at the border holds 0 too."""
    config = dataclasses.replace(PRE, root_pool=root_pool).completed()
    x = np.random.default_rng(0).normal(-1, 1, (1, *size, 32)).astype(np.float32)
    actual = Backbone(config, rngs=nnx.Rngs(0))._maximum(jnp.asarray(x))
    padded = np.pad(x[0], [(1, 1), (1, 1), (0, 0)], constant_values=border)
    rows, columns = (-(-side // 2) for side in size)
    expected = [
        [padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(columns)]
        for i in range(rows)
    ]
    np.testing.assert_array_equal(actual[0], expected)


def test_zeros_are_the_default_of_bit_alone() -> None:
    assert PRE.completed().root_pool == "zeros"
    assert ModelConfig("BiT-R152x4").completed().root_pool == "zeros"
    assert POST.completed().root_pool == HYBRID.completed().root_pool == "inherit"
    assert "root_pool" in refusal(dataclasses.replace, POST, root_pool="inf")
    assert "root_pool" in refusal(dataclasses.replace, HYBRID, root_pool="zeros")


# Images and activations


@ORDERS
@pytest.mark.parametrize("size", [32, (33, 47), (1, 8), (100, 31)])
def test_the_backbone_s_output_is_the_grid(model: Any, size: int | tuple[int, ...]) -> None:
    config = dataclasses.replace(model, image_size=size).completed()
    images = jax.ShapeDtypeStruct((2, *config.input_size, 3), jnp.float32)
    output = jax.eval_shape(lambda x: Backbone(config, rngs=nnx.Rngs(0))(x, OneDevice()), images)
    assert output.shape == (2, *config.grid, 256)


def test_a_hybrid_of_any_image_size() -> None:
    for size in (24, (40, 25)):
        config = dataclasses.replace(HYBRID, image_size=size)
        images = jax.ShapeDtypeStruct((1, *config.input_size, 3), jnp.float32)
        logits = jax.eval_shape(apply_model(config), abstract_params(config), images)
        assert logits.shape == (1, 5)
    assert config.grid == (5, 4)


@FAMILIES
def test_bfloat16_activations(model: Any) -> None:
    config = dataclasses.replace(model, dtype="bfloat16")
    seen = Seen()
    run = functools.partial(apply_model(config), capture=["features"], placement=seen)
    params = random_params(model)
    logits, captured = jax.jit(run)(params, _images())
    # The root's, each unit's and, in a hybrid, the tokens' and blocks'.
    assert len(seen.activations) >= 1 + sum(model.resnet.stages)
    assert {(shape[0], dtype) for shape, dtype in seen.activations} == {(2, jnp.dtype("bfloat16"))}
    assert captured["features"].dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - _logits(model)).max() < 0.1 * np.abs(_logits(model)).max()


@FAMILIES
def test_features(model: Any) -> None:
    params = random_params(model)
    logits, captured = jax.jit(functools.partial(apply_model(model), capture=["features"]))(
        params, _images()
    )
    features = np.asarray(captured["features"])
    assert features.shape == (2, 256 if model.family == "resnet" else 32)
    expected = features @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    headless = dataclasses.replace(model, num_classes=0)
    del params["head"]
    np.testing.assert_allclose(
        jax.jit(apply_model(headless))(params, _images()), features, rtol=1e-4, atol=1e-4
    )


def test_a_resnet_has_no_attention_to_capture() -> None:
    run = functools.partial(apply_model(POST), random_params(POST), _images())
    assert "no 'attention'" in refusal(run, capture=["attention"])


def test_a_hybrid_captures_what_a_vit_does() -> None:
    run = functools.partial(apply_model(HYBRID), capture=["attention", "layers", "tokens"])
    _, captured = jax.eval_shape(run, abstract_params(HYBRID), _images())
    assert {name: array.shape for name, array in captured.items()} == {
        "attention": (1, 2, 2, 17, 17),
        "layers": (1, 2, 17, 32),
        "tokens": (2, 17, 32),
    }


def test_create_model() -> None:
    for name in ("R26x1", "BiT-R26x1"):
        options = {"stages": [1], "width_factor": 0.5, "head_bias": 0.5}
        model = create_model(name, image_size=32, num_classes=3, **options)
        np.testing.assert_array_equal(model(_images()), np.full((2, 3), 0.5))
        with pytest.raises(ValueError, match="images are 16x16"):
            model(_images(16))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("R50x1", {"num_heads": 4}, "num_heads would be ignored: R50x1 is a ResNet"),
        ("R50x1", {"pooling": "gap"}, "pooling would be ignored"),
        ("R50x1", {"positions": "learned"}, "positions would be ignored"),
        ("R50x1", {"depth": 4}, "depth would be ignored"),
        ("R50x1", {"dropout": 0.1}, "dropout would be ignored"),
        ("R50x1", {"scan": False}, "scan would be ignored"),
        ("R50x1", {"remat": "dots"}, "remat='dots' would be ignored"),
        ("BiT-R50x1", {"gelu": "exact"}, "gelu would be ignored"),
        ("ViT-B/16", {"stages": (1,)}, "stages would be ignored: ViT-B/16 is a ViT"),
        ("ViT-B/16", {"token_mlp_dim": 8}, "token_mlp_dim would be ignored"),
        ("Mixer-B/16", {"registers": 1}, "registers would be ignored: Mixer-B/16 is a Mixer"),
        ("Mixer-B/16", {"width_factor": 2.0}, "width_factor would be ignored"),
        ("R50+ViT-B/16", {"token_mlp_dim": 8}, "is a hybrid, which has none"),
        ("R50x1", {"stages": ()}, "stages must not be empty"),
        ("R50x1", {"stages": (3, 0)}, "stages must each have at least one unit"),
        ("R50x1", {"width_factor": 0.25}, "gives 16 channels"),
        ("R50x0", {}, "gives 0 channels"),
        ("R50x1", {"image_size": 0}, "image_size must be positive"),
        ("R50+ViT-B/8", {}, "hybrids are known with /16 and /32; set stages"),
        ("R50+ViT-B/16", {"stages": (1, 1, 1, 1)}, "not a multiple of the 32"),
        ("R+ViT-Ti/16", {"image_size": 28}, "below one patch"),
    ],
)
def test_options_that_do_not_fit(name: str, options: dict[str, Any], message: str) -> None:
    assert message in refusal(ModelConfig, name, **options)


def test_what_is_left_open_follows_the_family() -> None:
    assert PRE.completed().norm_epsilon == 1e-5
    assert POST.completed().norm_epsilon == HYBRID.completed().norm_epsilon == 1e-6
    assert (POST.completed().pooling, POST.completed().gelu) == ("inherit", "inherit")
    assert (HYBRID.completed().pooling, HYBRID.completed().gelu) == ("token", "tanh")
    trained = dataclasses.replace(PRE, norm_epsilon=1e-3).completed()
    assert PRE.completed(trained).norm_epsilon == 1e-3
