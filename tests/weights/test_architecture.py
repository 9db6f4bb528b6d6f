import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.small_models import SMALL, random_params, refusal
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params
from vit_jax.models.sizes import SIZES, Size
from vit_jax.schema import build
from vit_jax.weights.architecture import infer_model


def _params(model: Any) -> dict[str, Any]:
    """Shapes are enough."""
    return abstract_params(model)


def _set(params: dict[str, Any], path: Any, shape: tuple[int, ...]) -> None:
    *outer, leaf = path.split("/")
    for name in outer:
        params = params[name]
    params[leaf] = jax.ShapeDtypeStruct(shape, jnp.float32)


def _besides_size(model: Any) -> dict[str, Any]:
    own = dataclasses.asdict(model)
    return {key: value for key, value in own.items() if key not in ("name", *Size._fields)}


@pytest.mark.parametrize("size", SIZES)
def test_every_named_size(size: str) -> None:
    shown = infer_model(_params(ModelConfig(f"ViT-{size}/16", image_size=32, num_classes=7)))
    assert shown == {
        "name": f"ViT-{size}/16",
        "pooling": "token",
        "positions": "learned",
        "registers": 0,
        "num_classes": 7,
        "image_size": 32,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 3},
        {"name": "ViT-S/4", "image_size": 8, "depth": 6, "mlp_dim": 99},
        {"num_heads": 4, "mlp_dim": 64},
        {"name": "ViT-L/14", "image_size": 28, "width": 896, "num_heads": 14},
        {"pooling": "gap"},
        {"pooling": "attention"},
        {"pooling": "gap", "positions": "sincos2d", "image_size": 224},
        {"registers": 4},
        {"representation_size": 24},
        {"num_classes": 0},
        {"num_classes": 0, "representation_size": 24, "registers": 1},
        {"image_size": (16, 24)},
        {"image_size": (40, 16), "pooling": "gap"},
        {"image_size": 40},
    ],
)
def test_what_differs_from_a_named_size(changes: dict[str, Any]) -> None:
    model = dataclasses.replace(SMALL, **changes)
    size = model.image_size
    shown = infer_model(_params(model), None if isinstance(size, int) else size)
    read = build(ModelConfig, shown).completed(SMALL)
    assert (read.size, read.patch_size) == (model.size, model.patch_size)
    assert _besides_size(read) == _besides_size(model)


def test_a_name_is_the_nearest_in_width() -> None:
    model = dataclasses.replace(SMALL, width=200, num_heads=5)
    shown = infer_model(_params(model))
    assert shown["name"] == "ViT-Ti/8"
    assert {k: shown[k] for k in ("depth", "width", "mlp_dim", "num_heads")} == model.size._asdict()


def test_positions_are_a_square_if_they_can_be() -> None:
    params = _params(dataclasses.replace(SMALL, image_size=(32, 72)))  # 4 x 9 = 6 x 6
    assert infer_model(params)["image_size"] == 48
    assert infer_model(params, (32, 72))["image_size"] == 48
    params = _params(dataclasses.replace(SMALL, image_size=(32, 40)))
    assert infer_model(params, (32, 40))["image_size"] == (32, 40)
    assert infer_model(params, (47, 35))["image_size"] == (47, 35)  # whole patches
    for size in (None, 32, (32, 48)):
        message = refusal(infer_model, params, size)
        assert "20 positions, which is not a square grid" in message


def test_fixed_positions_show_no_size() -> None:
    params = _params(dataclasses.replace(SMALL, positions="sincos2d", pooling="gap"))
    assert infer_model(params)["image_size"] == 224
    assert infer_model(params, (32, 40))["image_size"] == (32, 40)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("embedding/kernel", (8, 4, 3, 32)),
        ("embedding/kernel", (8, 8, 1, 32)),
        ("embedding/kernel", (192, 32)),
        ("blocks/attention/query/kernel", (2, 32, 32)),
        ("blocks/mlp/dense1/kernel", (32, 128)),
        ("pos_embedding", (5, 32)),
        ("head/kernel", (1, 1, 32, 5)),
        ("head/kernel", ()),
        ("pre_logits/kernel", (24,)),
        ("registers", (32,)),
    ],
)
def test_shapes_that_are_not_a_plain_vits(path: Any, shape: tuple[int, ...]) -> None:
    params = _params(dataclasses.replace(SMALL, representation_size=24, registers=1))
    _set(params, path, shape)
    message = refusal(infer_model, params)
    assert path in message and str(shape) in message


@pytest.mark.parametrize("path", ["embedding", "blocks"])
def test_what_no_vit_can_be_without(path: Any) -> None:
    params = random_params(SMALL)
    del params[path]
    assert f"{path}/" in refusal(infer_model, params)
