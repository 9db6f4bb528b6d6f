"""The AxialResNet of appendix D.6 against loops written out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.models.dots import traced_products
from tests.models.vit_parts import redrawn
from tests.small_models import refusal
from vit_jax import create_model
from vit_jax.analysis.macs import count_macs, count_params
from vit_jax.models.axial_resnet import AxialUnit, LineAttention
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params, apply_model

# Channels, the root's at half the width, and two of a head's four for queries and keys each.
WIDTH, HEADS, SIZE = 32, 8, 4


def _model(**options: Any) -> ModelConfig:
    common = {"image_size": (40, 24), "num_classes": 5, "stages": (1, 1), "width_factor": 0.5}
    return ModelConfig("AxialResNet-50", **common | options).completed()


def _drawn(module: nnx.Module) -> Any:
    """The same module with parameters far from their initial values, and these."""
    graphdef, state = nnx.split(module)
    params = redrawn(nnx.to_pure_dict(state))
    return nnx.merge(graphdef, params), params


def _group_norm(x: np.ndarray, params: Any) -> np.ndarray:
    """Over all axes but the first and, of the last, a group of 32."""
    grouped = x.reshape(*x.shape[:-1], 32, -1)
    axes = (*range(1, x.ndim - 1), x.ndim)
    mean, variance = (f(axis=axes, keepdims=True) for f in (grouped.mean, grouped.var))
    normed = ((grouped - mean) / np.sqrt(variance + 1e-4)).reshape(x.shape)
    return np.asarray(normed * params["scale"] + params["bias"])


def _along(lines: np.ndarray, params: Any) -> np.ndarray:
    """[lines, length, channels]: each position, each head and each pair of positions by itself."""
    count, length, _ = lines.shape
    mixed = _group_norm(lines @ params["qkv"]["kernel"], params["qkv_norm"])
    out = np.zeros_like(lines)
    for line in range(count):
        for head in range(HEADS):
            own = mixed[line, :, head * 2 * SIZE : (head + 1) * 2 * SIZE]
            query, key, value = np.split(own, [SIZE // 2, SIZE], axis=1)
            for i in range(length):
                scores, values = [], []
                for j in range(length):
                    # The first row is the offset of the first position from the last.
                    offset = params["offset_embedding"][i - j + length - 1]
                    of_query, of_key, of_value = np.split(offset, [SIZE // 2, SIZE])
                    scores.append(query[i] @ key[j] + query[i] @ of_key + key[j] @ of_query)
                    values.append(value[j] + of_value)
                weights = np.exp(scores) / np.exp(scores).sum()
                out[line, i, head * SIZE : (head + 1) * SIZE] = weights @ np.stack(values)
    return _group_norm(out, params["norm"])


def test_attention_along_a_line_is_that_of_a_loop() -> None:
    attention, params = _drawn(LineAttention(_model(), WIDTH, 3, rngs=nnx.Rngs(0)))
    lines = np.random.default_rng(0).normal(size=(2, 3, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(attention(lines), _along(lines, params), rtol=1e-3, atol=1e-4)


def _conv(x: np.ndarray, params: Any) -> np.ndarray:
    """A convolution of one pixel whose filters have mean 0 and variance 1."""
    kernel = params["kernel"][0, 0]
    centred = kernel - kernel.mean(0)
    return np.asarray(x @ (centred / (kernel.std(0) + 1e-5)))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_unit_is_that_of_a_loop(stride: int) -> None:
    """First along columns, then along rows, and in place of a stride the mean of 2x2."""
    config, width = _model(image_size=(12, 20)), WIDTH * stride
    unit, params = _drawn(AxialUnit(config, 64, width, stride, rngs=nnx.Rngs(0)))
    if stride == 2:
        # Eight heads of eight channels there.
        return _check_halved(unit, params)
    # A quarter of 12 x 20 pixels.
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 64)).astype(np.float32)
    y = np.maximum(_group_norm(_conv(x, params["conv1"]), params["norm1"]), 0)
    for column in range(5):
        y[:, :, column] = _along(y[:, :, column], params["columns"])
    for row in range(3):
        y[:, row] = _along(y[:, row], params["rows"])
    y = _group_norm(_conv(np.maximum(y, 0), params["conv3"]), params["norm3"])
    shortcut = _group_norm(_conv(x, params["projection"]), params["projection_norm"])
    np.testing.assert_allclose(unit(x), np.maximum(shortcut + y, 0), rtol=1e-2, atol=1e-3)


def _check_halved(unit: Any, params: Any) -> None:
    """From 3 x 5 positions 2 x 3 are left; the last row and column have zeros beside them."""
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 64)).astype(np.float32)
    y = np.maximum(np.asarray(unit.norm1(unit.conv1(x))), 0)
    y = np.stack([unit.columns(y[:, :, column]) for column in range(5)], 2)
    y = np.stack([unit.rows(y[:, row]) for row in range(3)], 1)
    padded = np.pad(y, ((0, 0), (0, 1), (0, 1), (0, 0)))
    mean = (
        padded[:, ::2, ::2] + padded[:, 1::2, ::2] + padded[:, ::2, 1::2] + padded[:, 1::2, 1::2]
    ) / 4
    y = _group_norm(_conv(np.maximum(mean, 0), params["conv3"]), params["norm3"])
    shortcut = _conv(x[:, ::2, ::2], params["projection"])
    shortcut = _group_norm(shortcut, params["projection_norm"])
    np.testing.assert_allclose(unit(x), np.maximum(shortcut + y, 0), rtol=1e-2, atol=1e-3)


def test_counts_in_closed_form() -> None:
    config, plain = (ModelConfig(name, num_classes=1000) for name in ("AxialResNet-50", "R50x1"))
    counts, of_plain = count_params(config), count_params(plain)
    assert counts.keys() == of_plain.keys()
    # Positions along a side before the attention of a stage's first unit and of the others.
    sides = {1: (56, 56), 2: (56, 28), 3: (28, 14), 4: (14, 7)}
    for stage, units in enumerate((3, 4, 6, 3), start=1):
        width, (first, later) = 64 * 2 ** (stage - 1), sides[stage]
        convolution = 9 * width**2 + 2 * width

        def attention(side: int, width: int = width) -> int:
            # Along one axis: the projection, two norms, and the offsets.
            return 2 * width**2 + 4 * width + 2 * width + (2 * side - 1) * width // 4

        expected = of_plain[f"backbone/stage{stage}"] - units * convolution
        expected += 2 * (attention(first) + (units - 1) * attention(later))
        assert counts[f"backbone/stage{stage}"] == expected
    assert sum(counts.values()) == 19_373_640


def test_multiply_adds_in_closed_form_and_as_traced() -> None:
    config = ModelConfig("AxialResNet-50", num_classes=1000)
    macs, plain = count_macs(config), count_macs(ModelConfig("R50x1", num_classes=1000))
    sides = {1: (56, 56), 2: (56, 28), 3: (28, 14), 4: (14, 7)}
    total = 2048 * 1000
    for stage, units in enumerate((3, 4, 6, 3), start=1):
        width = 64 * 2 ** (stage - 1)

        def along_both(side: int, width: int = width) -> int:
            # P (4 D^2 + 7/2 D (R + C)).
            return side**2 * (4 * width**2 + 7 * width * side)

        total += along_both(sides[stage][0]) + (units - 1) * along_both(sides[stage][1])
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    # The only products besides convolutions.
    assert traced_products(apply_model(config), abstract_params(config), images) == total
    assert macs["backbone/root"] == plain["backbone/root"]
    assert sum(macs.values()) == 4_050_806_528


def test_forms_of_the_program_agree() -> None:
    exact = _logits(_model())
    for options in ({"remat": "block"}, {"dtype": "bfloat16"}):
        loose = 0.1 if "dtype" in options else 1e-5
        np.testing.assert_allclose(
            _logits(_model(**options)), exact, atol=loose * np.abs(exact).max()
        )


def _logits(config: ModelConfig) -> Any:
    images = np.random.default_rng(0).uniform(-1, 1, (2, *config.input_size, 3))
    params = redrawn(abstract_params(config))
    return jax.jit(apply_model(config))(params, images.astype(np.float32))


def test_initial_values_make_each_unit_its_shortcut() -> None:
    model = create_model("AxialResNet-50", image_size=32, num_classes=3, stages=(2,))
    params = nnx.to_pure_dict(nnx.state(model))["backbone"]["stage1"]["unit2"]
    for path, deviation in ((("qkv", "kernel"), 64**-0.5), (("offset_embedding",), 8**-0.5)):
        leaf = params["rows"]
        for name in path:
            leaf = leaf[name]
        assert leaf.std() == pytest.approx(deviation, rel=0.1)
    assert not params["norm3"]["scale"].any()
    assert model.config.norm_epsilon == 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remat": "dots"}, "remat='dots' would be ignored"),
        ({"root_pool": "inf"}, "root_pool would be ignored"),
        ({"num_heads": 4}, "num_heads would be ignored: AxialResNet-50 is an AxialResNet"),
        ({"positions": "learned"}, "positions would be ignored"),
        ({"stages": ()}, "stages must not be empty"),
    ],
)
def test_what_does_not_fit(options: Any, message: str) -> None:
    assert message in refusal(_model, **options)
