"""What config.json and preprocessor_config.json state, read and written."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.small_models import SMALL, assert_same, random_params, refusal
from tests.weights.huggingface_files import ENCODER, NAMES, drawn_file, small_model
from vit_jax.preprocessing import PreprocessingConfig, normalize
from vit_jax.weights.files import open_weights, write_weights
from vit_jax.weights.layouts.huggingface import read_config, to_huggingface, write_config
from vit_jax.weights.layouts.huggingface_preprocessor import read_preprocessor, write_preprocessor


def test_what_a_config_states() -> None:
    # As transformers writes it.
    config = {
        "architectures": ["ViTForImageClassification"],
        "hidden_act": "gelu",
        "hidden_size": 192,
        "id2label": {"10": "k", **{str(i): "abcdefghij"[i] for i in range(10)}},
        "image_size": 224,
        "intermediate_size": 768,
        "layer_norm_eps": 1e-12,
        "model_type": "vit",
        "num_attention_heads": 3,
        "num_hidden_layers": 12,
        "patch_size": 16,
        "qkv_bias": True,
    }
    described = read_config(config, None)
    assert described.values == {
        "image_size": 224,
        "num_heads": 3,
        "gelu": "exact",
        "norm_epsilon": 1e-12,
    }
    assert described.class_names == tuple("abcdefghijk")  # by number
    default = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    assert read_config(config | default, None).class_names is None
    assert read_config(config | {"image_size": [224, 320]}, None).values["image_size"] == (224, 320)
    assert read_config(config | {"hidden_act": "gelu_pytorch_tanh"}, None).values["gelu"] == "tanh"
    # The library's defaults.
    del config["layer_norm_eps"], config["num_attention_heads"], config["hidden_act"]
    values = read_config(config, None).values
    assert (values["norm_epsilon"], values["num_heads"], values["gelu"]) == (1e-12, 12, "exact")
    assert "hidden_act='relu'" in refusal(read_config, config | {"hidden_act": "relu"}, None)


@pytest.mark.parametrize(
    ("preprocessor", "expected"),
    [
        (
            # google/vit-base-patch16-224
            {
                "do_normalize": True,
                "do_resize": True,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
                "resample": 2,
                "size": {"height": 224, "width": 224},
            },
            PreprocessingConfig(antialias=True),
        ),
        (
            {"size": 224, "resample": 3, "image_mean": [0.1, 0.2, 0.3]},
            PreprocessingConfig(mean=(0.1, 0.2, 0.3), interpolation="bicubic", antialias=True),
        ),
        (
            {
                "size": {"shortest_edge": 256},
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
                "image_std": [0.1, 0.2, 0.3],
            },
            PreprocessingConfig(
                std=(0.1, 0.2, 0.3), resize="short_side", short_side=256, antialias=True
            ),
        ),
    ],
)
def test_what_a_preprocessor_states(preprocessor: dict[str, Any], expected: Any) -> None:
    assert read_config({"model_type": "vit"}, preprocessor).values["preprocessing"] == expected


def test_what_is_written_for_transformers() -> None:
    preprocessing = PreprocessingConfig(interpolation="bicubic", antialias=True)
    model = small_model(preprocessing=preprocessing, gelu="exact")
    config = write_config(model, NAMES)
    expected = {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "image_size": 16,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "id2label": dict(zip("01234", NAMES, strict=True)),
        "label2id": dict(zip(NAMES, range(5), strict=True)),
    }
    assert {key: config[key] for key in expected} == expected
    # Their number is the head's width.
    assert write_config(model, None)["id2label"] == {str(i): f"LABEL_{i}" for i in range(5)}
    assert write_config(small_model(num_classes=0), None)["architectures"] == ["ViTModel"]
    written = write_preprocessor(model)
    assert written["resample"] == 3  # PIL.Image.BICUBIC
    assert written["size"] == {"height": 16, "width": 16}
    json.dumps([config, written], allow_nan=False)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gelu": "exact", "norm_epsilon": 1e-12, "image_size": (16, 40), "num_heads": 4},
        {"num_classes": 0},
        {"num_classes": 0, "representation_size": 24},
        {
            "preprocessing": PreprocessingConfig(
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
                resize="short_side",
                short_side=23,
                interpolation="bicubic",
                antialias=True,
            )
        },
    ],
)
def test_a_file_for_the_hub_needs_its_configs_only(tmp_path: Path, changes: dict[str, Any]) -> None:
    # Resizing is with antialiasing there, always.
    model = small_model(**{"preprocessing": PreprocessingConfig(antialias=True), **changes})
    names = NAMES if model.num_classes else None
    params = random_params(model)
    path = tmp_path / "model.safetensors"
    write_weights(path, params, model, layout="huggingface", class_names=names)
    (tmp_path / "model.json").unlink()
    assert load_file(path).keys() == to_huggingface(params, model).keys()
    for source in (path, tmp_path):
        weights = open_weights(source)
        assert (weights.layout, weights.class_names, weights.assumed) == ("huggingface", names, {})
        assert weights.model == dataclasses.replace(model, num_heads=model.size.num_heads)
        assert_same(weights.params, params)


def test_without_configs_the_librarys_defaults_are_assumed_and_listed(tmp_path: Path) -> None:
    save_file(drawn_file(), tmp_path / "vit.safetensors")
    weights = open_weights(tmp_path / "vit.safetensors")
    model = weights.model
    assert (model.gelu, model.norm_epsilon, model.num_classes) == ("exact", 1e-12, 5)
    assert (model.size, model.pooling, model.positions) == (SMALL.size, "token", "learned")
    assert model.preprocessing == PreprocessingConfig(antialias=True)
    for words in ("gelu=exact", "norm_epsilon=1e-12", "mean=[0.5, 0.5, 0.5]", "antialias=True"):
        assert words in ", ".join(weights.assumed.values())


# Descriptions in full.

PREPROCESSOR = {
    "do_normalize": True,
    "do_resize": True,
    "do_rescale": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.5, 0.5],
    "resample": 2,
    "size": {"height": 224, "width": 224},
    "image_processor_type": "ViTImageProcessor",
}


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        # (x * rescale_factor - mean) / std of the pixel 51, as the library computes it.
        ({}, (-1.2, -0.6)),
        ({"rescale_factor": 1 / 127.5}, (-0.4, -0.2)),
        ({"do_rescale": False}, (202.0, 101.0)),
        ({"do_rescale": False, "rescale_factor": 9.0}, (202.0, 101.0)),
        ({"do_normalize": False}, (0.2, 0.2)),
        ({"do_normalize": False, "image_mean": None, "image_std": None}, (0.2, 0.2)),
        ({"do_normalize": False, "do_rescale": False}, (51.0, 51.0)),
        ({"do_normalize": False, "rescale_factor": 1 / 127.5}, (0.4, 0.4)),
        ({"rescale_factor": None, "image_mean": None}, (-1.2, -0.6)),
    ],
)
def test_a_preprocessor_s_arithmetic(changes: dict[str, Any], values: tuple[float, float]) -> None:
    found = read_preprocessor(PREPROCESSOR | changes)
    normalized = normalize(np.full((1, 1, 3), 51, np.uint8), found)
    np.testing.assert_allclose(normalized[0, 0], (*values, values[1]), rtol=1e-5)
    assert (found.interpolation, found.resize, found.antialias) == ("bilinear", "squash", True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resample": 0}, "resample=0 (nearest)"),
        ({"resample": 1}, "resample=1 (lanczos)"),
        ({"resample": 4}, "resample=4 (box)"),
        ({"resample": 77}, "resample=77 (unknown)"),
        ({"resample": "bilinear"}, "preprocessor_config.json.resample"),
        ({"do_resize": False}, "do_resize=False"),
        ({"do_pad": True}, "do_pad"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"rescale_factor": 0}, "rescale_factor=0"),
        ({"rescale_factor": -1.0}, "rescale_factor=-1"),
        ({"do_normalize": "yes"}, "do_normalize"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.0, 0.5, 0.5]}, "std must be"),
        ({"image_std": [1e-320, 0.5, 0.5]}, "std must be"),
        ({"size": {"longest_edge": 224}}, "longest_edge"),
        ({"size": {"height": 224}}, "size="),
        ({"size": {"shortest_edge": 0}}, "size="),
        ({"size": "224"}, "size="),
        ({"image_processor_type": "CLIPImageProcessor", "resample": None}, "no resample"),
        ({"image_processor_type": "BeitImageProcessor", "image_mean": None}, "no image_mean"),
    ],
)
def test_a_preprocessor_that_is_not_understood(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(read_preprocessor, PREPROCESSOR | changes)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "deit"}, "model_type='deit'"),
        ({"model_type": "dinov2"}, "model_type='dinov2'"),
        ({"num_classes": 5}, "no model_type or architecture"),
        ({}, "no model_type or architecture"),
        ({"model_type": "vit", "hidden_act": "relu"}, "hidden_act='relu'"),
        ({"model_type": "vit", "hidden_act": ["gelu"]}, "config.json.hidden_act"),
        ({"model_type": "vit", "num_channels": 1}, "num_channels=1"),
        ({"model_type": "vit", "layer_norm_ep3": 1e-6}, "did you mean 'layer_norm_eps'"),
        ({"model_type": "vit", "imaoe_size": 16}, "did you mean 'image_size'"),
        ({"model_type": "vit", "id2labdl": {"0": "a"}}, "did you mean 'id2label'"),
        ({"model_type": "vit", "num_attention_heads": "two"}, "num_attention_heads"),
        ({"model_type": "vit", "image_size": [224]}, "image_size"),
        ({"model_type": "vit", "id2label": ["a"]}, "id2label"),
        ({"model_type": "vit", "id2label": {"1": "a", "2": "b"}}, "id2label"),
        ({"model_type": "vit", "id2label": {"0": 1}}, "id2label"),
    ],
)
def test_a_config_that_is_not_understood(tmp_path: Path, config: Any, words: str) -> None:
    write_weights(tmp_path / "model.safetensors", random_params(SMALL), SMALL, layout="huggingface")
    (tmp_path / "model.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert words in refusal(open_weights, tmp_path)


def test_other_files_may_hold_the_preprocessor(tmp_path: Path) -> None:
    write_weights(tmp_path / "model.safetensors", random_params(SMALL), SMALL, layout="huggingface")
    (tmp_path / "model.json").unlink()
    stated = PREPROCESSOR | {"do_normalize": False}
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": stated}))
    assert open_weights(tmp_path).model.preprocessing == read_preprocessor(stated)
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": 3}))
    assert "processor_config.json" in refusal(open_weights, tmp_path)
    # Without a config.json.
    for name in ("config.json", "processor_config.json"):
        (tmp_path / name).unlink()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    weights = open_weights(tmp_path)
    assert weights.model.preprocessing == read_preprocessor(stated)
    assert "preprocessing" not in weights.assumed and "norm_epsilon" in weights.assumed


def test_a_wrapper_s_prefix_is_named(tmp_path: Path) -> None:
    for prefix in ("module.", "model.", "deit."):
        arrays = {f"{prefix}{name}": array for name, array in drawn_file(ENCODER).items()}
        save_file(arrays, tmp_path / "w.safetensors")
        message = refusal(open_weights, tmp_path / "w.safetensors")
        assert f"start with {prefix!r}" in message and "huggingface" in message


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.bool_])
def test_weights_that_are_no_floats(tmp_path: Path, dtype: Any) -> None:
    file = {name: (10 * array).astype(dtype) for name, array in drawn_file().items()}
    save_file(file, tmp_path / "w.safetensors")
    assert str(np.dtype(dtype)) in refusal(open_weights, tmp_path / "w.safetensors")
    some = drawn_file() | {"vit.layernorm.weight": np.ones(32, dtype)}
    save_file(some, tmp_path / "w.safetensors")
    assert "vit.layernorm.weight" in refusal(open_weights, tmp_path / "w.safetensors")
