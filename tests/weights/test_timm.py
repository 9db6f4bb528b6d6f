import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_models import SMALL, assert_same, random_params, refusal
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import write_weights
from vit_jax.weights.layouts.timm import TIMM, from_timm, to_timm

# Names and shapes of timm's vit_tiny_patch16_224 with patch_size=8, img_size=16, embed_dim=32,
# num_heads=2, depth=2, num_classes=5.
SHAPES = {
    "cls_token": (1, 1, 32),
    "pos_embed": (1, 5, 32),
    "patch_embed.proj.weight": (32, 3, 8, 8),
    "patch_embed.proj.bias": (32,),
    **{
        f"blocks.{i}.{name}": shape
        for i in range(2)
        for name, shape in {
            "norm1.weight": (32,),
            "norm1.bias": (32,),
            "attn.qkv.weight": (96, 32),
            "attn.qkv.bias": (96,),
            "attn.proj.weight": (32, 32),
            "attn.proj.bias": (32,),
            "norm2.weight": (32,),
            "norm2.bias": (32,),
            "mlp.fc1.weight": (128, 32),
            "mlp.fc1.bias": (128,),
            "mlp.fc2.weight": (32, 128),
            "mlp.fc2.bias": (32,),
        }.items()
    },
    "norm.weight": (32,),
    "norm.bias": (32,),
    "head.weight": (5, 32),
    "head.bias": (5,),
}


def _file(**changes: Any) -> dict[str, np.ndarray]:
    """Arrays as of timm; a change to a shape, or None for none."""
    rng = np.random.default_rng(0)
    shapes = {**SHAPES, **changes}
    return {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items() if s is not None}


def _model(**changes: Any) -> ModelConfig:
    return dataclasses.replace(SMALL, **changes)


def _mean_pooled() -> dict[str, np.ndarray]:
    file = _file()
    return {
        name.replace("norm.", "fc_norm.") if name[0] == "n" else name: a for name, a in file.items()
    }


# Names and places.


def test_each_value_has_its_place() -> None:
    file = _file()
    params, pooling = from_timm(file, heads=2)
    assert pooling == "token"
    attention = params["blocks"]["attention"]
    for third, part in enumerate(("query", "key", "value")):
        kernel, bias = (np.asarray(attention[part][leaf]) for leaf in ("kernel", "bias"))
        assert (kernel.shape, bias.shape) == ((2, 32, 2, 16), (2, 2, 16))
        for block in range(2):
            fused = file[f"blocks.{block}.attn.qkv.weight"]
            for head in range(2):
                rows = slice(third * 32 + head * 16, third * 32 + head * 16 + 16)
                np.testing.assert_array_equal(kernel[block, :, head], fused[rows].T)
                fused_bias = file[f"blocks.{block}.attn.qkv.bias"]
                np.testing.assert_array_equal(bias[block, head], fused_bias[rows])
    out = np.asarray(attention["out"]["kernel"])
    assert out[1, 1, 3, 7] == file["blocks.1.attn.proj.weight"][7, 19]
    mlp = params["blocks"]["mlp"]
    dense1, dense2 = np.asarray(mlp["dense1"]["kernel"]), np.asarray(mlp["dense2"]["kernel"])
    assert dense1[1, 4, 100] == file["blocks.1.mlp.fc1.weight"][100, 4]
    assert dense2[0, 100, 4] == file["blocks.0.mlp.fc2.weight"][4, 100]
    for ours, theirs in (("norm1", "norm1"), ("norm2", "norm2")):
        scale = np.asarray(params["blocks"][ours]["scale"])
        np.testing.assert_array_equal(scale[1], file[f"blocks.1.{theirs}.weight"])
    np.testing.assert_array_equal(params["norm"]["bias"], file["norm.bias"])
    kernel = np.asarray(params["embedding"]["kernel"])
    assert kernel[2, 5, 1, 30] == file["patch_embed.proj.weight"][30, 1, 2, 5]
    assert np.asarray(params["head"]["kernel"])[9, 4] == file["head.weight"][4, 9]
    np.testing.assert_array_equal(params["pos_embedding"], file["pos_embed"])
    np.testing.assert_array_equal(params["cls"], file["cls_token"])


def test_the_names_of_a_file_tell_the_layout() -> None:
    assert TIMM.matches(_file(), {})
    assert not TIMM.matches({"embedding/kernel", "vit.embeddings.cls_token"}, {})


@pytest.mark.parametrize(
    ("file", "model", "pooling"),
    [
        (_file(), {}, "token"),
        (_mean_pooled(), {"pooling": "gap_timm"}, "gap_timm"),
        # class_token=False, fc_norm=False: as in Google's files.
        (_file(cls_token=None, pos_embed=(1, 4, 32)), {"pooling": "gap"}, "gap"),
        (_file(**{"head.weight": None, "head.bias": None}), {"num_classes": 0}, "token"),
    ],
    ids=["token", "mean", "google's mean", "without head"],
)
def test_file_to_ours_and_back_bit_for_bit(
    file: dict[str, np.ndarray], model: Any, pooling: str
) -> None:
    params, found = from_timm(file, heads=2)
    assert found == pooling
    model = _model(**model)
    assert_same(to_timm(params, model), file)
    assert_same(from_timm(to_timm(random_params(model), model), 2)[0], random_params(model))


# Positions.


@pytest.mark.parametrize("image_size", [16, (16, 32), (16, 40), (24, 40), (32, 48)])
@pytest.mark.parametrize("registers", [0, 3, 4])
@pytest.mark.parametrize("pooling", ["token", "gap", "gap_timm"])
def test_positions_of_any_grid_and_registers(image_size: Any, registers: int, pooling: str) -> None:
    # With a class token, 2x4, 3x5 and 4x6 patches have a square number of positions.
    model = _model(image_size=image_size, registers=registers, pooling=pooling)
    params = random_params(model)
    file = to_timm(params, model)
    assert file["pos_embed"].shape == (1, model.sequence_length, 32)  # as of timm
    first = int(model.has_class_token)
    assert not file["pos_embed"][:, first : first + registers].any()
    assert_same(from_timm(file, 2, image_size)[0], params)
    if image_size == 16:
        assert_same(from_timm(file, 2)[0], params)


@pytest.mark.parametrize("has_class_token", [True, False])
def test_positions_of_registers_are_part_of_the_registers(has_class_token: bool) -> None:
    # timm: tokens are class, registers, patches; positions are added to all of them.
    first = int(has_class_token)
    file = _file(
        reg_token=(1, 3, 32),
        pos_embed=(1, first + 3 + 4, 32),
        cls_token=(1, 1, 32) if has_class_token else None,
    )
    params, _ = from_timm(file, 2)
    positions = file["pos_embed"]
    np.testing.assert_array_equal(
        params["registers"], file["reg_token"] + positions[:, first : first + 3]
    )
    kept = np.concatenate([positions[:, :first], positions[:, first + 3 :]], axis=1)
    np.testing.assert_array_equal(params["pos_embedding"], kept)


@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize(("grid", "image_size"), [(4, None), (4, 16), (8, (16, 32))])
def test_positions_of_patches_alone(grid: Any, image_size: Any, registers: int) -> None:
    # no_embed_class=True
    reg_token = (1, registers, 32) if registers else None
    file = _file(pos_embed=(1, grid, 32), reg_token=reg_token)
    params, _ = from_timm(file, 2, image_size)
    positions = np.asarray(params["pos_embedding"])
    assert positions.shape == (1, 1 + grid, 32)
    assert not positions[:, 0].any()
    np.testing.assert_array_equal(positions[:, 1:], file["pos_embed"])
    if registers:
        np.testing.assert_array_equal(params["registers"], file["reg_token"])


# Refusals.


def test_names_and_shapes_that_are_not_a_plain_vits() -> None:
    strange = {"blocks.0.ls1.gamma": (32,), "dist_token": (1, 1, 32), "norm_pre.weight": (32,)}
    message = refusal(from_timm, _file(**strange), 2)
    assert message.startswith("3 names ")
    assert all(f"{name} {shape}" in message for name, shape in strange.items())
    message = refusal(from_timm, _file() | {"fc_norm.weight": np.zeros(32)}, 2)
    assert "norm.bias (32,), norm.weight (32,)" in message
    for shape in ((), (97, 32)):
        message = refusal(from_timm, _file(**{"blocks.1.attn.qkv.weight": shape}), 2)
        assert f"blocks.1.attn.qkv.weight has the shape {shape}" in message


def test_forms_that_are_not_supported() -> None:
    file = {n: a for n, a in _mean_pooled().items() if n != "cls_token"}
    assert "fc_norm without a class token" in refusal(from_timm, file, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": "attention"},
        {"representation_size": 8},
        {"positions": "sincos2d"},
        {"positions": "none"},
    ],
)
def test_forms_that_timm_lacks(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = _model(**changes)
    message = refusal(
        write_weights, tmp_path / "w.safetensors", random_params(model), model, layout="timm"
    )
    assert "--layout=google" in message
    assert not list(tmp_path.iterdir())
