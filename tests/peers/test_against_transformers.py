"""Hugging Face's models and configs against ours, both ways."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf
from transformers import (
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

import vit_jax
from tests.peers.drawn import (
    assert_close,
    images_for,
    module_outputs,
    outputs,
    redrawn_model,
    redrawn_module,
)
from tests.peers.like_transformers import SMALL, made, write
from vit_jax.__main__ import main
from vit_jax.models.functional import model_params
from vit_jax.weights.files import write_weights

SIZES = {
    "Ti": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    "S": {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    "B": {},
}


def _assert_equal(model: Any, module: Any, batch: int = 2) -> None:
    images = images_for(model, batch)
    assert_close(outputs(model, images), module_outputs(module, images).logits)


@pytest.mark.parametrize("size", SIZES)
def test_each_size(tmp_path: Path, size: Any) -> None:
    module = redrawn_module(ViTForImageClassification(ViTConfig(num_labels=1000, **SIZES[size])))
    module.save_pretrained(tmp_path)
    model = vit_jax.load_model(f"ViT-{size}/16", weights=tmp_path)
    assert (model.config.gelu, model.config.norm_epsilon) == ("exact", 1e-12)
    _assert_equal(model, module, batch=1)


FORMS: dict[str, Any] = {
    "defaults": {},
    "not square": {"image_size": [48, 96]},
    "not a whole number of patches": {"image_size": [50, 99]},
    "another patch": {"patch_size": 8, "image_size": 40},
    "tanh GELU": {"hidden_act": "gelu_pytorch_tanh"},
    "tanh GELU, as it was called": {"hidden_act": "gelu_new"},
    "a large epsilon": {"layer_norm_eps": 0.1},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_directory_of_each_form(tmp_path: Path, form: Any) -> None:
    module = made(**FORMS[form])
    module.save_pretrained(tmp_path)
    _assert_equal(vit_jax.load_model(weights=tmp_path), module)


def test_a_bare_file(tmp_path: Path) -> None:
    module = made(hidden_size=192, num_attention_heads=3)
    module.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "vit.safetensors")
    (tmp_path / "config.json").unlink()
    _assert_equal(vit_jax.load_model(weights=tmp_path / "vit.safetensors"), module)


def test_an_epsilon_that_matters(tmp_path: Path) -> None:
    module = made()
    embeddings = module.vit.embeddings
    with torch.no_grad():  # Tokens as small as the root of 1e-12, the epsilon.
        for parameter in embeddings.parameters():
            parameter *= 1e-6
    module.save_pretrained(tmp_path)
    _assert_equal(vit_jax.load_model(weights=tmp_path), module)


@pytest.mark.parametrize("size", ["Ti", "B"])
def test_the_pooler_is_the_representation_layer(tmp_path: Path, size: Any) -> None:
    width = SIZES[size].get("hidden_size", 768)
    config = ViTConfig(image_size=96, num_hidden_layers=3, pooler_output_size=80, **SIZES[size])
    module = redrawn_module(ViTModel(config))
    module.save_pretrained(tmp_path)
    model = vit_jax.load_model(weights=tmp_path)
    assert (model.config.representation_size, model.config.num_classes) == (80, 0)
    images = images_for(model)
    theirs = module_outputs(module, images)
    assert_close(outputs(model, images), theirs.pooler_output)
    tokens = model(images, capture=["tokens"])[1]["tokens"]
    assert tokens.shape == (2, 37, width)


def test_all_tokens_without_a_pooler(tmp_path: Path) -> None:
    config = ViTConfig(**SMALL)
    module = redrawn_module(ViTModel(config, add_pooling_layer=False))
    module.save_pretrained(tmp_path)
    model = vit_jax.load_model(weights=tmp_path)
    images = images_for(model)
    theirs = module_outputs(module, images).last_hidden_state
    assert_close(outputs(model, images), theirs[:, 0])
    with jax.default_matmul_precision("highest"):
        assert_close(model(images, capture=["tokens"])[1]["tokens"], theirs)


@pytest.mark.parametrize("size", SIZES)
def test_transformers_builds_each_size_from_what_we_write(tmp_path: Path, size: Any) -> None:
    model = redrawn_model(f"ViT-{size}/16", num_classes=10)
    write(tmp_path, model)
    module = ViTForImageClassification.from_pretrained(tmp_path)
    assert module.config.num_labels == 10
    assert module.config.num_hidden_layers == 12
    assert module.config.num_attention_heads == model.config.size.num_heads
    _assert_equal(model, module, batch=1)


OUR_FORMS: dict[str, Any] = {
    "not square": {"image_size": (48, 96)},
    "not a whole number of patches": {"image_size": (50, 99)},
    "exact GELU": {"gelu": "exact"},
    "a large epsilon": {"norm_epsilon": 0.1},
    "a small size": {"name": "ViT-mu/8"},
    "another shape": {"width": 88, "num_heads": 11, "mlp_dim": 95, "depth": 3},
}


@pytest.mark.parametrize("form", OUR_FORMS)
def test_transformers_builds_each_form_from_what_we_write(tmp_path: Path, form: Any) -> None:
    options = {"name": "ViT-Ti/16", "image_size": 64, "num_classes": 7, "depth": 2}
    model = redrawn_model(**options | OUR_FORMS[form])
    write(tmp_path, model)
    module, report = ViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    _assert_equal(model, module)
    (tmp_path / "model.json").unlink()
    _assert_equal(vit_jax.load_model(weights=tmp_path), module)


def test_transformers_has_a_pooler_from_our_representation_layer(tmp_path: Path) -> None:
    model = redrawn_model(
        "ViT-Ti/16", image_size=64, num_classes=0, depth=2, representation_size=80
    )
    write(tmp_path, model)
    module, report = ViTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    images = images_for(model)
    assert_close(outputs(model, images), module_outputs(module, images).pooler_output)


def test_transformers_has_no_head_where_we_have_none(tmp_path: Path) -> None:
    model = redrawn_model("ViT-Ti/16", image_size=64, num_classes=0, depth=2)
    write(tmp_path, model)
    module = ViTModel.from_pretrained(tmp_path, add_pooling_layer=False)
    images = images_for(model)
    theirs = module_outputs(module, images).last_hidden_state
    assert_close(outputs(model, images), theirs[:, 0])


def test_what_only_a_config_says_does_matter() -> None:
    """The forms above would fail with another GELU or epsilon."""
    images = np.random.default_rng(1).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    plain = module_outputs(made(), images).logits
    for arguments in (FORMS["tanh GELU"], FORMS["a large epsilon"]):
        changed = module_outputs(made(**arguments), images).logits
        assert (changed - plain).abs().max() > 2e-4


def test_class_names_both_ways(tmp_path: Path) -> None:
    names = ("chat", "żółw", "newt")
    model = redrawn_model("ViT-Ti/16", image_size=32, num_classes=3, depth=1)
    write(tmp_path, model, class_names=names)
    module = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert module.config.id2label == dict(enumerate(names))
    assert module.config.label2id == {name: i for i, name in enumerate(names)}
    module.save_pretrained(tmp_path / "again")
    assert vit_jax.load_model(weights=tmp_path / "again").class_names == names


def test_convert_from_timm_to_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = redrawn_module(timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5))
    save_for_hf(module, tmp_path / "timm", safe_serialization=True)
    source, target = tmp_path / "timm", tmp_path / "hub" / "model.safetensors"
    command = ["convert", f"--source={source}", f"--target={target}", "--layout=huggingface"]
    assert main(command) == 0
    assert str(target) in capsys.readouterr().out
    converted = ViTForImageClassification.from_pretrained(target.parent)
    images = images_for(vit_jax.load_model(weights=source))
    assert_close(module_outputs(converted, images).logits, module_outputs(module, images))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": "gap"}, "pooling=gap"),
        ({"pooling": "gap_timm"}, "pooling=gap_timm"),
        ({"pooling": "attention"}, "pooling=attention"),
        ({"representation_size": 9}, "representation layer before a head"),
        ({"positions": "sincos2d"}, "positions=sincos2d"),
        ({"registers": 2}, "registers"),
    ],
)
def test_a_form_that_transformers_has_not_is_refused(
    tmp_path: Path, options: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = redrawn_model("ViT-Ti/16", image_size=32, num_classes=5, depth=1, **options)
    write_weights(tmp_path / "google.npz", model_params(model), model.config)
    source, target = tmp_path / "google.npz", tmp_path / "vit.safetensors"
    command = ["convert", f"--source={source}", f"--target={target}", "--layout=huggingface"]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Hugging Face's ViT has no") and words in line
    assert not target.exists()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (lambda: made(hidden_act="relu"), "relu"),
        (lambda: made(qkv_bias=False), "blocks/attention/query/bias"),
        (lambda: ViTModel(ViTConfig(**SMALL), use_mask_token=True), "embeddings.mask_token"),
        (lambda: ViTModel(ViTConfig(**SMALL, pooler_act="relu")), "pooler_act"),
    ],
    ids=["relu", "no biases", "mask token", "relu in the pooler"],
)
def test_a_form_of_transformers_that_we_have_not_is_refused(
    tmp_path: Path, module: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module().save_pretrained(tmp_path / "hub")
    capsys.readouterr()
    source, target = tmp_path / "hub", tmp_path / "google.npz"
    assert main(["convert", f"--source={source}", f"--target={target}", "--layout=google"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
