import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.small_models import SMALL, assert_same, random_params, refusal
from vit_jax.models.config import ModelConfig
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.weights.files import open_weights, write_weights
from vit_jax.weights.layouts.timm import to_timm
from vit_jax.weights.layouts.timm_config import read_config, write_config

# config.json of timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k.
AUGREG = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 1000,
    "num_features": 192,
    "global_pool": "token",
    "pretrained_cfg": {
        "tag": "augreg_in21k_ft_in1k",
        "custom_load": False,
        "input_size": [3, 224, 224],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 1000,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    },
}


def _model(**changes: Any) -> ModelConfig:
    return dataclasses.replace(SMALL, **changes)


def test_a_config_of_the_hub() -> None:
    described = read_config(AUGREG)
    assert described.class_names is None
    assert described.values == {
        "image_size": 224,
        "gelu": "exact",
        "preprocessing": PreprocessingConfig(
            resize="short_side",
            short_side=248,  # floor(224 / 0.9)
            crop_share=0.9,
            interpolation="bicubic",
            antialias=True,
        ),
    }


def test_a_pooling_that_is_not_supported() -> None:
    config = AUGREG | {"global_pool": "avg", "model_args": {"fc_norm": False}}
    assert "fc_norm=false and a class token" in refusal(read_config, config)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_args": {"img_size": 384, "num_heads": 6}}, {"image_size": 384, "num_heads": 6}),
        ({"model_args": {"img_size": [384, 512]}}, {"image_size": (384, 512)}),
        ({"model_args": {"img_size": [384, 384]}}, {"image_size": 384}),
        ({"model_args": {"act_layer": "gelu_tanh"}}, {"gelu": "tanh"}),
        ({"label_names": ["cat", "dog"]}, {"class_names": ("cat", "dog")}),
        ({"pretrained_cfg": {"label_names": ["cat"]}}, {"class_names": ("cat",)}),
        ({"pretrained_cfg": {"input_size": [3, 128, 96]}}, {"image_size": (128, 96)}),
        (
            {"pretrained_cfg": {"crop_mode": "squash", "crop_pct": 1.0, "mean": [0, 0.5, 1]}},
            {
                "preprocessing": PreprocessingConfig(
                    mean=(0, 0.5, 1), interpolation="bicubic", antialias=True
                )
            },
        ),
        (
            {"pretrained_cfg": {"interpolation": "bilinear", "crop_pct": 0.95, "std": [1, 1, 2]}},
            {
                "preprocessing": PreprocessingConfig(
                    std=(1, 1, 2),
                    resize="short_side",
                    short_side=235,
                    crop_share=0.95,
                    antialias=True,
                )
            },
        ),
    ],
)
def test_what_a_config_states(config: dict[str, Any], expected: Any) -> None:
    described = read_config(config)
    stated = {**described.values, "class_names": described.class_names}
    assert {key: stated[key] for key in expected} == expected


def test_a_config_names_what_timm_builds() -> None:
    model = _model(
        name="ViT-S/16",
        depth=None,
        image_size=224,
        gelu="exact",
        pooling="gap_timm",
        preprocessing=PreprocessingConfig(resize="short_side", short_side=248, antialias=True),
    )
    config = write_config(model, ("a", "b", "c", "d", "e"))
    assert config["architecture"] == "vit_small_patch16_224"
    arguments = config["model_args"]
    assert arguments == {
        "img_size": [224, 224],
        "patch_size": 16,
        "embed_dim": 384,
        "depth": 12,
        "num_heads": 6,
        "mlp_ratio": 4.0,
        "num_classes": 5,
        "class_token": True,
        "reg_tokens": 0,
        "global_pool": "avg",
        "fc_norm": True,
        "act_layer": "gelu",
    }
    assert config["label_names"] == ["a", "b", "c", "d", "e"]
    assert config["pretrained_cfg"]["crop_pct"] == pytest.approx(224 / 248)
    json.dumps(config, allow_nan=False)


def test_the_hidden_width_survives_timms_rounding() -> None:
    for width, hidden in ((1408, 6144), (1152, 4304), (30, 77), (90, 91)):
        model = _model(width=width, mlp_dim=hidden, num_heads=2)
        assert int(width * write_config(model, None)["model_args"]["mlp_ratio"]) == hidden


def test_any_crop_survives_timms_rounding() -> None:
    for side in (32, 224, 336):
        for short_side in range(side, 2 * side):
            preprocessing = PreprocessingConfig(resize="short_side", short_side=short_side)
            model = _model(image_size=side, preprocessing=preprocessing)
            share = write_config(model, None)["pretrained_cfg"]["crop_pct"]
            assert int(side / share) == short_side


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pooling": "gap_timm", "gelu": "exact", "image_size": (16, 32)},
        {"pooling": "gap", "registers": 3, "num_classes": 0, "image_size": (16, 40)},
        {
            "num_heads": 4,
            "preprocessing": PreprocessingConfig(
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
                resize="short_side",
                short_side=23,
                interpolation="bicubic",
                antialias=True,
            ),
        },
    ],
)
def test_a_file_for_the_hub_needs_its_config_only(tmp_path: Path, changes: dict[str, Any]) -> None:
    preprocessing = PreprocessingConfig(antialias=True)  # timm has it always
    model = _model(**{"preprocessing": preprocessing, **changes})
    names = ("a", "b", "c", "d", "e") if model.num_classes else None
    params = random_params(model)
    path = tmp_path / "model.safetensors"
    write_weights(path, params, model, layout="timm", class_names=names)
    (tmp_path / "model.json").unlink()
    assert load_file(path).keys() == to_timm(params, model).keys()
    for source in (path, tmp_path):
        weights = open_weights(source)
        assert (weights.layout, weights.class_names, weights.assumed) == (
            "timm",
            names,
            {"norm_epsilon": "norm_epsilon=1e-06"},
        )
        assert weights.model == dataclasses.replace(model, num_heads=model.size.num_heads)
        assert_same(weights.params, params)


# Without a config.


@pytest.mark.parametrize(
    ("name", "mean", "short_side", "said"),
    [
        ("deit_small.safetensors", (0.485, 0.456, 0.406), 18, "mean=[0.485, 0.456, 0.406]"),
        ("vit_small.safetensors", (0.5, 0.5, 0.5), 17, "mean=[0.5, 0.5, 0.5]"),
    ],
)
def test_without_a_config_timms_defaults_are_assumed_and_listed(
    tmp_path: Path, name: str, mean: tuple[float, ...], short_side: int, said: str
) -> None:
    write_weights(tmp_path / name, random_params(SMALL), SMALL, layout="timm")
    (tmp_path / name).with_suffix(".json").unlink()
    weights = open_weights(tmp_path / name)
    model = weights.model
    assert (model.gelu, model.norm_epsilon, model.num_classes) == ("exact", 1e-6, 5)
    preprocessing = model.preprocessing
    assert preprocessing is not None
    assert (preprocessing.mean, preprocessing.short_side) == (mean, short_side)
    assert (preprocessing.resize, preprocessing.interpolation) == ("short_side", "bicubic")
    assert preprocessing.antialias
    for words in ("gelu=exact", "norm_epsilon=1e-06", f"short_side={short_side}", said):
        assert words in ", ".join(weights.assumed.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pretrained_cfg": {"interpolation": "nearest"}}, "interpolation=nearest"),
        ({"pretrained_cfg": {"interpolation": "random"}}, "interpolation=random"),
        ({"pretrained_cfg": {"interpolation": "lanczos"}}, "interpolation=lanczos"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode=border"),
        ({"pretrained_cfg": {"crop_pct": 0}}, "crop_pct=0"),
        ({"pretrained_cfg": {"crop_pct": 1.14}}, "crop_pct=1.14"),
        ({"pretrained_cfg": {"crop_pct": "0.9"}}, "pretrained_cfg.crop_pct"),
        ({"pretrained_cfg": {"input_size": [1, 224, 224]}}, "input_size=[1, 224, 224]"),
        ({"pretrained_cfg": {"input_size": 224}}, "pretrained_cfg.input_size"),
        ({"pretrained_cfg": {"std": [0, 1, 1]}}, "std must be"),
        ({"pretrained_cfg": []}, "pretrained_cfg"),
        ({"model_args": {"act_layer": "swiglu"}}, "act_layer=swiglu"),
        ({"model_args": {"num_heads": "3"}}, "model_args.num_heads"),
        ({"label_names": [1, 2]}, "label_names"),
        ({"architecture": 3}, "architecture"),
    ],
)
def test_a_config_that_is_not_understood(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(read_config, AUGREG | changes)


def test_a_config_without_an_architecture(tmp_path: Path) -> None:
    write_weights(tmp_path / "model.safetensors", random_params(SMALL), SMALL, layout="timm")
    (tmp_path / "model.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architecture"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "no model_type or architecture" in refusal(open_weights, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deit"}))
    assert "model_type='deit'" in refusal(open_weights, tmp_path)
    # Our own description comes first.
    (tmp_path / "model.json").write_text(json.dumps({"model": {"gelu": "exact"}}))
    assert open_weights(tmp_path).model.gelu == "exact"
