"""timm's models and files against ours, both ways."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf

import vit_jax
from tests.peers.drawn import assert_close, images_for, module_outputs, outputs, redrawn_module
from tests.peers.like_timm import SIZES, assert_equal, assert_equal_preprocessing
from tests.small_models import random_params
from vit_jax.__main__ import main
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import write_weights

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 64, "num_classes": 7}
MEAN = {"global_pool": "avg"}
GOOGLES_GAP = {"global_pool": "avg", "class_token": False, "fc_norm": False}


def made(**arguments: Any) -> Any:
    return redrawn_module(timm.create_model(SIZES["Ti"], **SMALL | arguments))


@pytest.mark.parametrize("size", SIZES)
def test_a_bare_file_of_each_size(tmp_path: Path, size: Any) -> None:
    module = redrawn_module(timm.create_model(SIZES[size]))
    save_file(module.state_dict(), tmp_path / "vit.safetensors")
    model = vit_jax.load_model(f"ViT-{size}/16", weights=tmp_path / "vit.safetensors")
    assert model.config.pooling == "token" and model.config.num_classes == 1000
    assert_equal(model, module, batch=1)


@pytest.mark.parametrize("size", SIZES)
def test_mean_pooling_of_each_size(tmp_path: Path, size: Any) -> None:
    module = redrawn_module(timm.create_model(SIZES[size], img_size=96, **MEAN))
    save_file(module.state_dict(), tmp_path / "vit.safetensors")
    model = vit_jax.load_model(f"ViT-{size}/16", weights=tmp_path / "vit.safetensors")
    assert model.config.pooling == "gap_timm"
    assert_equal(model, module, batch=1)


REGISTERS = {"reg_tokens": 4}
PATCHES_ONLY = {"no_embed_class": True}
NOT_SQUARE = {"img_size": (48, 96)}
FORMS: dict[str, Any] = {
    "class token": ({}, "token"),
    "no head": ({"num_classes": 0}, "token"),
    "mean": (MEAN, "gap_timm"),
    "Google's mean": (GOOGLES_GAP, "gap"),
    "registers": (REGISTERS, "token"),
    "registers without positions": (REGISTERS | PATCHES_ONLY, "token"),
    "nine registers, as many as a square": ({"reg_tokens": 9}, "token"),
    "three registers, a square with the token": ({"reg_tokens": 3} | PATCHES_ONLY, "token"),
    "class token without position": (PATCHES_ONLY, "token"),
    "registers, mean": (REGISTERS | MEAN, "gap_timm"),
    "registers without positions, mean": (REGISTERS | PATCHES_ONLY | MEAN, "gap_timm"),
    "registers, Google's mean": (REGISTERS | GOOGLES_GAP, "gap"),
    "registers without positions, Google's mean": (REGISTERS | PATCHES_ONLY | GOOGLES_GAP, "gap"),
    "not square": (NOT_SQUARE, "token"),
    "not square, mean": (NOT_SQUARE | MEAN, "gap_timm"),
    "not square, Google's mean": (NOT_SQUARE | GOOGLES_GAP, "gap"),
    "not square, registers": (NOT_SQUARE | REGISTERS, "token"),
    "not square, registers without positions": (NOT_SQUARE | REGISTERS | PATCHES_ONLY, "token"),
    "not square, class token without position": (NOT_SQUARE | PATCHES_ONLY, "token"),
    "not a whole number of patches": ({"img_size": (50, 99)}, "token"),
    "another patch": ({"patch_size": 8, "img_size": 40}, "token"),
    "another shape": ({"embed_dim": 40, "num_heads": 5, "mlp_ratio": 2.7, "depth": 3}, "token"),
    "tanh GELU": ({"act_layer": "gelu_tanh"}, "token"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_directory_of_each_form(tmp_path: Path, form: Any) -> None:
    arguments, pooling = FORMS[form]
    module = made(**arguments)
    save_for_hf(module, tmp_path, safe_serialization=True)
    model = vit_jax.load_model(weights=tmp_path)
    assert model.config.pooling == pooling
    assert model.config.registers == arguments.get("reg_tokens", 0)
    assert_equal(model, module)


@pytest.mark.parametrize(
    ("architecture", "image_size"),
    [
        ("test_vit", 64),
        ("vit_base_patch16_gap_224", 32),
        ("vit_so150m_patch16_reg4_gap_256", 32),
        ("vit_giantopt_patch16_siglip_gap_256", 32),
        ("vit_base_patch32_siglip_gap_256", 64),
        ("vit_base_patch16_siglip_gap_224", 32),
        ("deit_tiny_patch16_224", 64),
    ],
)
def test_what_only_an_architectures_name_says(
    tmp_path: Path, architecture: Any, image_size: Any
) -> None:
    module = timm.create_model(architecture, img_size=image_size, depth=2, num_classes=5)
    save_for_hf(redrawn_module(module), tmp_path, safe_serialization=True)
    assert_equal(vit_jax.load_model(weights=tmp_path), module)


def test_an_epsilon_that_matters(tmp_path: Path) -> None:
    module = made()
    with torch.no_grad():  # Tokens as small as the root of the epsilon, 1e-6.
        for parameter in (*module.patch_embed.parameters(), module.pos_embed, module.cls_token):
            parameter *= 1e-3
    save_for_hf(module, tmp_path, safe_serialization=True)
    assert_equal(vit_jax.load_model(weights=tmp_path), module)


def test_the_saved_config_gives_preprocessing_and_classes(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e", "f", "g"]
    data = {"crop_pct": 0.95, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    save_for_hf(
        made(),
        tmp_path,
        {"labels": names, "label_names": names},
        safe_serialization=True,
        data_config=data,
    )
    model = vit_jax.load_model(weights=tmp_path)
    assert model.class_names == tuple(names)
    module = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert_equal_preprocessing(model, module)
    assert model.config.preprocessing.short_side == 67  # 64 / 0.95 = 67.4


def test_timms_wrong_kinds_would_show() -> None:
    """What the tests above compare does depend on GELU and epsilon."""
    images = np.random.default_rng(1).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    exact = module_outputs(made(), images)
    assert (module_outputs(made(act_layer="gelu_tanh"), images) - exact).abs().max() > 2e-4


@pytest.mark.parametrize(("old", "new"), [(64, 96), (96, 48), ((48, 96), (80, 64))])
def test_another_resolution(tmp_path: Path, old: Any, new: Any) -> None:
    """timm resizes positions bicubically with antialiasing."""
    save_for_hf(made(img_size=old), tmp_path, safe_serialization=True)
    module = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=new).eval()
    model = vit_jax.load_model(
        weights=tmp_path, image_size=new, position_resize="bicubic_antialiased"
    )
    assert_equal(model, module)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"global_pool": "avg", "class_token": False}, "fc_norm"),
        ({"global_pool": "avg", "fc_norm": False}, "fc_norm"),
        ({"global_pool": "max"}, "global_pool=max"),
        ({"global_pool": "map"}, "global_pool=map"),
        ({"act_layer": "relu"}, "relu"),
        ({"pool_include_prefix": True} | MEAN, "pool_include_prefix"),
        ({"init_values": 1.0}, "ls1.gamma"),
        ({"qk_norm": True}, "attn.q_norm.weight"),
        ({"pre_norm": True}, "norm_pre.weight"),
        ({"qkv_bias": False}, "blocks/attention/query/bias"),
    ],
)
def test_a_form_of_timm_that_we_have_not_is_refused(
    tmp_path: Path, arguments: Any, words: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    save_for_hf(made(**arguments), tmp_path / "timm", safe_serialization=True)
    source, target = tmp_path / "timm", tmp_path / "google.npz"
    assert main(["convert", f"--source={source}", f"--target={target}", "--layout=google"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize("side", [64, 97])
def test_bit_s_released_layout(tmp_path: Path, side: int) -> None:
    """timm's own loader reads the file, and the root's maximum pads with zeros in both."""
    config = ModelConfig(
        "BiT-R50x1", image_size=side, num_classes=7, stages=(1, 2), width_factor=0.5
    ).completed()
    params = random_params(config)
    params["backbone"]["norm"]["scale"] = 1 + 0.2 * params["backbone"]["norm"]["scale"]
    write_weights(tmp_path / "bit.npz", params, config)
    # Neither library sees more than a released file has.
    (tmp_path / "bit.json").unlink()
    module = timm.models.resnetv2.ResNetV2(
        layers=[1, 2],
        channels=[128, 256],
        num_classes=7,
        stem_chs=32,
        stem_type="fixed",
        conv_layer=functools.partial(timm.layers.StdConv2d, eps=1e-10),
    )
    module.load_pretrained(str(tmp_path / "bit.npz"))
    # Two stages alone show neither the name's usual stages nor the image size.
    model = vit_jax.load_model(weights=tmp_path / "bit.npz", image_size=side)
    assert model.config.root_pool == "zeros"
    images = images_for(model)
    expected = module_outputs(module.eval(), images)
    assert_close(outputs(model, images), expected)
    other = vit_jax.load_model(weights=tmp_path / "bit.npz", image_size=side, root_pool="inf")
    assert np.abs(outputs(other, images) - np.asarray(expected)).max() > 0.01
