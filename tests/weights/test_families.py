"""Weight files of the other families than ViTs: Google's names both ways, and files to logits."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.small_models import assert_same, random_params, refusal
from vit_jax import load_model
from vit_jax.models import list_models
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params, apply_model, model_params
from vit_jax.schema import build
from vit_jax.weights.architecture import infer_model
from vit_jax.weights.files import open_weights, write_weights
from vit_jax.weights.layouts.google import from_google, to_google
from vit_jax.weights.load import params_for

PARITY = Path(__file__).parents[1] / "parity"
RESNET = ModelConfig("R50x1", image_size=32, num_classes=5, stages=(2, 1), width_factor=0.5)
SMALL = {
    "resnet": RESNET.completed(),
    "bit": dataclasses.replace(RESNET, name="BiT-R50x1").completed(),
    "hybrid": ModelConfig(
        "R50+ViT-mu/8", image_size=32, num_classes=5, stages=(1, 1), width_factor=0.5
    ).completed(),
    "root only": ModelConfig("R+ViT-mu/4", image_size=(16, 24), num_classes=5).completed(),
    "mixer": ModelConfig(
        "Mixer-S/8", image_size=16, num_classes=5, depth=2, width=16, mlp_dim=24, token_mlp_dim=10
    ).completed(),
    "axial": ModelConfig("AxialViT-mu/8", image_size=(16, 24), num_classes=5, depth=2).completed(),
    "axial resnet": dataclasses.replace(RESNET, name="AxialResNet-50").completed(),
}
EACH = pytest.mark.parametrize("kind", SMALL)


def _released(name: str) -> dict[str, np.ndarray]:
    with np.load(PARITY / f"{name}.npz") as file:
        names = [n for n in file.files if n.startswith("params/")]
        return {name.removeprefix("params/"): file[name] for name in names}


def _read(flat: Mapping[str, Any]) -> dict[str, Any]:
    return jax.tree.map(np.asarray, from_google(flat))


# Names


@pytest.mark.parametrize("name", ["hybrid_r", "resnet_v2", "mixer"])
def test_released_names_come_back_bit_for_bit(name: str) -> None:
    flat = _released(name)
    back = to_google(_read(flat))
    assert back.keys() == flat.keys()
    for key, array in flat.items():
        assert back[key].shape == array.shape and back[key].dtype == array.dtype, key
        np.testing.assert_array_equal(back[key], array, err_msg=key)


@EACH
def test_our_parameters_come_back_bit_for_bit(kind: str) -> None:
    params = random_params(SMALL[kind])
    assert_same(from_google(to_google(params)), params)


def test_shapes_of_norms_and_of_the_head() -> None:
    hybrid, resnet, bit = (to_google(random_params(SMALL[k])) for k in ("hybrid", "resnet", "bit"))
    assert hybrid["block1/unit1/gn_proj/scale"].shape == (1, 1, 1, 128)
    # As big_vision's own are, which are not those of the released hybrids.
    assert resnet["block1/unit1/gn_proj/scale"].shape == (128,)
    assert resnet["head/kernel"].shape == (256, 5)
    assert bit["resnet/block1/unit02/a/group_norm/gamma"].shape == (128,)
    assert bit["resnet/head/conv2d/kernel"].shape == (1, 1, 256, 5)


def test_numbers_after_bit_s_convolutions_say_nothing() -> None:
    flat = _released("resnet_v2")
    numbered = {
        re.sub("standardized_conv2d", f"standardized_conv2d_{i}" if i % 3 else r"\g<0>", name): a
        for i, (name, a) in enumerate(flat.items())
    }
    assert numbered.keys() != flat.keys()
    assert_same(from_google(numbered), _read(flat))


def test_big_vision_s_names_of_pre_activation_resnets(tmp_path: Path) -> None:
    params = random_params(SMALL["bit"])
    flat = {}
    for path, array in traverse_util.flatten_dict(params, sep="/").items():
        name = path.replace("projection", "conv_proj")
        name = re.sub(r"backbone/stage(\d)/unit(\d)", r"block\1/unit0\2", name)
        name = re.sub(r"/norm(\d)/", r"/gn\1/", name).replace("backbone/norm", "norm-pre-head")
        name = name.replace("backbone/root", "root_block/conv_root")
        is_norm = "/gn" in name or name.startswith("norm-pre-head")
        flat[name] = array[None, None, None] if is_norm else array
    flat = {f"params/{name}": array for name, array in flat.items()}
    assert_same(from_google(flat), params)
    # Its root pads with minus infinity, BiT's own with zeros.
    np.savez(tmp_path / "big_vision.npz", **flat)
    np.savez(tmp_path / "released.npz", **to_google(params))
    shown = {
        name: open_weights(tmp_path / f"{name}.npz").model for name in ("big_vision", "released")
    }
    assert {name: model.root_pool for name, model in shown.items()} == {
        "big_vision": "inf",
        "released": "zeros",
    }


def test_a_second_name_and_an_unknown_one_are_refused() -> None:
    flat = _released("resnet_v2")
    name = "resnet/block1/unit01/a/standardized_conv2d"
    message = refusal(from_google, flat | {f"{name}_3/kernel": flat[f"{name}/kernel"]})
    assert "second name for backbone/stage1/unit1/conv1/kernel" in message
    for unknown in (f"{name}_x/kernel", "resnet/block1/unit01/d/group_norm/beta", "block1/unit1/x"):
        assert unknown in refusal(from_google, flat | {unknown: np.zeros(3)})
    del flat["resnet/block1/unit01/a/proj/standardized_conv2d/kernel"]
    assert from_google(flat)["backbone"]["stage1"]["unit1"].keys().isdisjoint({"projection"})


def test_a_gap_in_mixer_s_blocks() -> None:
    flat = {k: v for k, v in _released("mixer").items() if not k.startswith("MixerBlock_0/")}
    assert "MixerBlock_0 is missing" in refusal(from_google, flat)


# What shapes show


@pytest.mark.parametrize("name", [n for n in list_models() if not n.startswith("ViT-")])
def test_every_named_model(name: str) -> None:
    config = ModelConfig(name, num_classes=7)
    shown = infer_model(abstract_params(config))
    assert shown["name"] == name
    assert build(ModelConfig, shown).completed() == config.completed()
    assert not {"stages", "width_factor", "depth", "width"} & shown.keys()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("R50x1", {"stages": (2, 2), "width_factor": 1.5}),
        ("BiT-R50x1", {"stages": (1,), "num_classes": 0}),
        ("R50+ViT-B/8", {"stages": (1, 2), "width_factor": 0.5, "depth": 2}),
        ("R26+ViT-B/32", {"stages": (3, 4, 9), "image_size": 64, "pooling": "gap"}),
        ("R50x2+ViT-S/16", {"representation_size": 9, "registers": 2}),
        ("R+ViT-Ti/8", {"width_factor": 2.0, "positions": "sincos2d", "pooling": "gap"}),
        ("Mixer-L/8", {"depth": 3, "token_mlp_dim": 9, "image_size": (40, 64)}),
        ("AxialViT-Ti/8", {"depth": 3, "mlp_dim": 99, "image_size": (40, 64)}),
        ("AxialViT-S/8", {"positions": "learned2d", "representation_size": 9}),
        ("AxialResNet-50", {"stages": (2, 2), "width_factor": 1.5, "image_size": (40, 62)}),
    ],
)
def test_what_differs_from_a_named_model(name: str, changes: dict[str, Any]) -> None:
    config = ModelConfig(name, **{"num_classes": 7, **changes}).completed()
    size = config.image_size
    shown = infer_model(abstract_params(config), None if isinstance(size, int) else size)
    read = build(ModelConfig, shown).completed()
    assert (read.shape, read.patch_size) == (config.shape, config.patch_size)
    for key in ("family", "image_size", "num_classes", "pooling", "positions", "registers"):
        assert getattr(read, key) == getattr(config, key), key
    assert abstract_params(read) == abstract_params(config)


def test_positions_after_a_backbone_that_pads() -> None:
    # 40 x 21 pixels are 5 x 3 positions of stride 8.
    config = dataclasses.replace(SMALL["hybrid"], image_size=(40, 21))
    params = abstract_params(config)
    assert infer_model(params, (40, 21))["image_size"] == (40, 21)
    assert "15 positions" in refusal(infer_model, params, (48, 21))


def test_files_that_are_incomplete() -> None:
    params = random_params(SMALL["resnet"])
    stage = params["backbone"].pop("stage1")
    assert "backbone/stage1 is missing" in refusal(infer_model, params)
    params["backbone"] |= {"stage1": stage}
    del params["backbone"]["root"]
    assert "backbone/root/kernel is missing" in refusal(infer_model, params)
    params = random_params(SMALL["hybrid"])
    params["embedding"]["kernel"] = np.zeros((1, 1, 128, 32))
    assert "not that of square patches with 256 channels" in refusal(infer_model, params)


# Files


@EACH
def test_from_file_to_logits(kind: str, tmp_path: Path) -> None:
    config, params = SMALL[kind], random_params(SMALL[kind])
    write_weights(tmp_path / "a.npz", params, config, class_names=("a", "b", "c", "d", "e"))
    opened = open_weights(tmp_path / "a.npz")
    assert (opened.model, opened.assumed) == (config, {})
    model = load_model(weights=tmp_path / "a.npz")
    assert_same(model_params(model), params)
    assert (model.config, model.class_names) == (config, ("a", "b", "c", "d", "e"))
    images = np.random.default_rng(0).uniform(-1, 1, (2, *config.input_size, 3)).astype("f4")
    expected = jax.jit(apply_model(config))(params, images)
    actual = jax.jit(lambda x: model(x))(images)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)

    (tmp_path / "a.json").unlink()
    alone = open_weights(tmp_path / "a.npz", config.image_size)
    assert (alone.model.shape, alone.model.patch_size) == (config.shape, config.patch_size)
    assert abstract_params(alone.model) == abstract_params(config)
    says_gelu = config.family not in ("resnet", "axial_resnet")
    assert ("gelu" in alone.assumed) == says_gelu
    epsilon = {"bit": "1e-05", "axial resnet": "0.0001"}.get(kind, "1e-06")
    assert alone.assumed["norm_epsilon"] == f"norm_epsilon={epsilon}"


@EACH
def test_another_head(kind: str, tmp_path: Path) -> None:
    write_weights(tmp_path / "a.npz", random_params(SMALL[kind]), SMALL[kind])
    params, expected = (
        model_params(load_model(weights=tmp_path / "a.npz", num_classes=3)),
        random_params(SMALL[kind]),
    )
    head = params.pop("head")
    assert head["kernel"].shape[1] == 3 and not head["kernel"].any()
    del expected["head"]
    assert_same(params, expected)


@pytest.mark.parametrize("kind", ["resnet", "bit", "hybrid", "axial"])
def test_another_image_size(kind: str, tmp_path: Path) -> None:
    write_weights(tmp_path / "a.npz", random_params(SMALL[kind]), SMALL[kind])
    model = load_model(weights=tmp_path / "a.npz", image_size=(40, 64))
    params = random_params(SMALL[kind])
    if kind == "hybrid":
        assert model_params(model)["pos_embedding"].shape == (1, 1 + 5 * 8, 32)
        assert_same(model_params(model)["backbone"], params["backbone"])
    elif kind == "axial":
        assert model_params(model)["pos_embedding"].shape == (1, 5 * 8, 32)
        assert_same(model_params(model)["blocks"], params["blocks"])
    else:
        assert_same(model_params(model), params)


def test_offsets_along_an_axis_are_resized(tmp_path: Path) -> None:
    """Linearly, the most negative and the largest on each other; tables of one side each."""
    config, params = SMALL["axial resnet"], random_params(SMALL["axial resnet"])
    write_weights(tmp_path / "a.npz", params, config)
    resized = model_params(load_model(weights=tmp_path / "a.npz", image_size=(32, 40)))
    for stage, (old, new) in {"stage1": (8, 10), "stage2": (8, 10)}.items():
        before, after = (p["backbone"][stage]["unit1"] for p in (params, resized))
        np.testing.assert_array_equal(
            after["columns"]["offset_embedding"], before["columns"]["offset_embedding"]
        )
        table = before["rows"]["offset_embedding"]
        assert len(table) == 2 * old - 1
        places = np.linspace(0, 2 * old - 2, 2 * new - 1)
        expected = np.stack([np.interp(places, np.arange(2 * old - 1), x) for x in table.T], 1)
        np.testing.assert_allclose(
            after["rows"]["offset_embedding"], expected, rtol=1e-5, atol=1e-6
        )


def test_a_mixer_has_one_image_size(tmp_path: Path) -> None:
    write_weights(tmp_path / "a.npz", random_params(SMALL["mixer"]), SMALL["mixer"])
    message = refusal(load_model, weights=tmp_path / "a.npz", image_size=32)
    assert "2x2, and the model has 4x4; use image_size=16" in message
    # Twice the pixels in twice the patches.
    larger = dataclasses.replace(SMALL["mixer"], name="Mixer-S/16", image_size=32)
    params, _ = params_for(open_weights(tmp_path / "a.npz"), larger)
    assert params["embedding"]["kernel"].shape == (16, 16, 3, 16)


def test_names_are_checked_against_the_file(tmp_path: Path) -> None:
    for kind, config in SMALL.items():
        path = tmp_path / f"{kind}.npz"
        write_weights(path, random_params(config), config)
        others = ("R50x1", "BiT-R50x1", "R50+ViT-B/16", "Mixer-S/16", "ViT-B/16")
        for other in (*others, "AxialViT-B/16", "AxialResNet-50"):
            assert f"not {other}" in refusal(load_model, other, weights=path)


@pytest.mark.parametrize("layout", ["timm", "huggingface"])
@EACH
def test_other_layouts_are_of_plain_vits(kind: str, layout: str, tmp_path: Path) -> None:
    message = refusal(
        write_weights,
        tmp_path / "a.safetensors",
        random_params(SMALL[kind]),
        SMALL[kind],
        layout=layout,
    )
    assert SMALL[kind].name in message and "--layout=google" in message
