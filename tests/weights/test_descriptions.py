"""What describes a weight file, and what is assumed without a description."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_models import CROP, SMALL, assert_same, random_params, refusal
from vit_jax import load_model
from vit_jax.models.config import ModelConfig
from vit_jax.schema import to_dict
from vit_jax.weights.description import sealed
from vit_jax.weights.files import open_weights, write_weights

PREPROCESSING = dataclasses.replace(CROP, short_side=20)
OTHER = dataclasses.replace(
    SMALL, preprocessing=PREPROCESSING, gelu="exact", norm_epsilon=1e-12, pooling="gap_timm"
)


def _model(**changes: Any) -> ModelConfig:
    return dataclasses.replace(SMALL, **changes)


def _write(
    directory: Path,
    model: Any = SMALL,
    layout: str = "google",
    text: str | None = None,
    **options: Any,
) -> Path:
    """Writes a file and, in the place of its description, `text`; none if that is empty."""
    path = directory / ("w.npz" if layout == "google" else "w.safetensors")
    write_weights(path, random_params(model), model, layout=layout, **options)
    if text is not None:
        path.with_suffix(".json").write_text(text)
    if text == "":
        path.with_suffix(".json").unlink()
    return path


@pytest.mark.parametrize("layout", ["google", "timm"])
def test_a_description_states_what_no_array_shows(tmp_path: Path, layout: str) -> None:
    weights = open_weights(_write(tmp_path, OTHER, layout))
    assert (weights.model, weights.assumed) == (OTHER, {})


@pytest.mark.parametrize("layout", ["google", "timm", "huggingface"])
@pytest.mark.parametrize("image_size", [(32, 72), (16, 32), (32, 40)])
def test_a_grid_that_is_no_square(tmp_path: Path, layout: str, image_size: Any) -> None:
    # 4 x 9 patches could be 6 x 6; 2 x 4 and the class token could be 3 x 3.
    model = _model(image_size=image_size)
    weights = open_weights(_write(tmp_path, model, layout))
    assert weights.model == model
    assert_same(weights.params, random_params(model))


@pytest.mark.parametrize("layout", ["timm", "huggingface"])
def test_heads_that_the_layout_does_not_show(tmp_path: Path, layout: str) -> None:
    # 384 wide would be S with 6 heads; the other's 4 are its own.
    for changes in ({"name": "ViT-B/8", "width": 384, "mlp_dim": 32}, {"num_heads": 4}):
        model = _model(**changes)
        weights = open_weights(_write(tmp_path, model, layout))
        assert weights.model == model
        assert_same(weights.params, random_params(model))


# Without a description.


def test_google_s_defaults_are_assumed_and_listed(tmp_path: Path) -> None:
    model = _model(pooling="gap", registers=2, representation_size=24)
    weights = open_weights(_write(tmp_path, model, text=""))
    assert weights.model == model
    assert_same(weights.params, random_params(model))
    assert weights.class_names is None
    assert ", ".join(weights.assumed.values()) == (
        "gelu=tanh, norm_epsilon=1e-06, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5], resize=squash, "
        "interpolation=bilinear, antialias=False, pooling=gap"
    )


@pytest.mark.parametrize(
    ("options", "assumed"),
    [
        ({}, {}),
        ({"pooling": "attention", "num_classes": 0}, {}),
        ({"pooling": "gap"}, {"pooling": "pooling=gap"}),
        ({"num_classes": 0}, {"pooling": "pooling=token"}),
        ({"positions": "sincos2d"}, {"positions": "positions=sincos2d"}),
        (
            {"positions": "none", "pooling": "gap"},
            {"pooling": "pooling=gap", "positions": "positions=sincos2d"},
        ),
    ],
)
def test_what_no_array_shows_is_among_the_assumptions(
    tmp_path: Path, options: Any, assumed: dict[str, str]
) -> None:
    weights = open_weights(_write(tmp_path, _model(**options), text=""))
    found = {
        key: weights.assumed[key] for key in ("pooling", "positions") if key in weights.assumed
    }
    assert found == assumed
    stated = {
        key: getattr(_model(**options), key) for key in ("pooling", "positions", "image_size")
    }
    weights = open_weights(_write(tmp_path, _model(**options), text=json.dumps({"model": stated})))
    assert weights.assumed.keys().isdisjoint(stated)
    assert weights.model == _model(**options)


@pytest.mark.parametrize("layout", ["timm", "huggingface"])
def test_what_no_array_of_pytorch_shows(tmp_path: Path, layout: str) -> None:
    """An encoder alone may be one of masked images, which has no use for its class token."""
    path = tmp_path / "model.safetensors"
    write_weights(path, random_params(_model(num_classes=0)), _model(num_classes=0), layout=layout)
    (tmp_path / "model.json").unlink()
    assert "pooling" not in open_weights(path).assumed  # The library's config tells it.
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).unlink(missing_ok=True)
    assert open_weights(path).assumed["pooling"] == "pooling=token"


def test_the_user_may_know_better_what_is_assumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _write(tmp_path, _model(positions="none"), text="")
    model = load_model(weights=path, positions="none", gelu="exact")
    assert (model.config.positions, model.config.gelu) == ("none", "exact")
    assert "positions" not in caplog.text and "gelu" not in caplog.text
    # What shows, nobody knows better.
    assert "pooling=token" in refusal(load_model, weights=path, pooling="gap")


def test_the_preprocessing_is_listed_as_it_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "deit.safetensors"
    model = _model(image_size=56)
    write_weights(path, random_params(model), model, layout="timm")
    (tmp_path / "deit.json").unlink()
    # DeiT resizes to 256 for a crop of 224.
    assert "short_side=64" in open_weights(path).assumed["preprocessing"]
    assert load_model(weights=path, image_size=112).config.preprocessing.short_side == 128
    assert "short_side=128" in caplog.text and "short_side=64" not in caplog.text


def test_the_images_of_a_grid_that_is_no_square_must_be_told(tmp_path: Path) -> None:
    model = _model(image_size=(32, 40))
    path = _write(tmp_path, model, text="")
    assert "20 positions, which is not a square grid" in refusal(open_weights, path)
    assert open_weights(path, (32, 40)).model == model
    # Not so where a square fits: released files are square.
    model = _model(image_size=48)
    path = _write(tmp_path, model, text="")
    assert open_weights(path, (32, 72)).model == model


def test_a_thousand_classes_are_imagenets(tmp_path: Path) -> None:
    model = _model(num_classes=1000)
    weights = open_weights(_write(tmp_path, model, text=""))
    assert weights.class_names is not None and len(weights.class_names) == 1000
    assert "tabby" in weights.class_names[281]
    assert weights.assumed["class_names"] == "the classes of ImageNet-1k"
    own = tuple(map(str, range(1000)))
    weights = open_weights(_write(tmp_path, model, class_names=own))
    assert (weights.class_names, weights.assumed) == (own, {})
    assert open_weights(_write(tmp_path, model)).class_names is None  # others, that have no names


# With another description.


def test_what_a_description_leaves_out_is_assumed_and_listed(tmp_path: Path) -> None:
    text = json.dumps({"class_names": ["a", "b", "c", "d", "e"], "model": {"gelu": "exact"}})
    weights = open_weights(_write(tmp_path, text=text))
    assert weights.model == _model(gelu="exact")
    assert weights.class_names == ("a", "b", "c", "d", "e")
    assert list(weights.assumed) == ["norm_epsilon", "preprocessing"]


@pytest.mark.parametrize("text", ['{"model": ', "[1]", "\x00\x01", '"google"'])
def test_a_broken_description_is_an_error(tmp_path: Path, text: str) -> None:
    assert "w.json" in refusal(open_weights, _write(tmp_path, text=text))


@pytest.mark.parametrize(
    "description", [{"model": 3}, {"model": ["gelu"]}, {"class_names": "cat"}, {"class_names": 5}]
)
def test_a_description_of_other_types_is_an_error(
    tmp_path: Path, description: dict[str, Any]
) -> None:
    message = refusal(open_weights, _write(tmp_path, text=json.dumps(description)))
    assert "w.json the model must be an object and the class names a list" in message


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"preprocessing": {"mean": [0.5] * 3, "deviation": [1] * 3}}, "preprocessing.deviation"),
        ({"preprocessing": {"mean": [0.5] * 2}}, "model.preprocessing.mean"),
        ({"gelu": "relu"}, "model.gelu"),
        ({"image_size": "large"}, "model.image_size"),
        ({"num_classes": 4}, "num_classes=4, its arrays 5"),
        ({"num_classes": None}, "num_classes=None, its arrays 5"),
        ({"representation_size": 24}, "representation_size=24, its arrays None"),
    ],
)
@pytest.mark.parametrize("layout", ["google", "timm"])
def test_wrong_values_are_named(
    tmp_path: Path, layout: str, changes: dict[str, Any], problem: str
) -> None:
    text = json.dumps({"model": to_dict(SMALL) | changes})
    path = _write(tmp_path, layout=layout, text=text)
    message = refusal(open_weights, path)
    assert problem in message and str(path) in message


def test_a_loss_that_does_not_exist(tmp_path: Path) -> None:
    assert open_weights(_write(tmp_path, extra={"loss": "sigmoid"})).extra == {"loss": "sigmoid"}
    message = refusal(open_weights, _write(tmp_path, text='{"loss": "hinge"}'))
    assert "loss='hinge', not one of softmax, sigmoid" in message


@pytest.mark.parametrize("number", [0, 4, 6])
def test_too_few_or_too_many_class_names(tmp_path: Path, number: Any) -> None:
    text = json.dumps({"model": to_dict(SMALL), "class_names": ["name"] * number})
    message = refusal(open_weights, _write(tmp_path, text=text))
    assert f"{number} class names" in message and "5 classes" in message


def test_without_a_head_there_are_no_classes(tmp_path: Path) -> None:
    model = _model(num_classes=0)
    text = json.dumps({"model": to_dict(model), "class_names": ["name"] * 7})
    weights = open_weights(_write(tmp_path, model, text=text))
    assert (weights.model, weights.class_names) == (model, None)
    assert "head" not in weights.params


def test_parameters_are_read_only_when_they_are_asked_for(tmp_path: Path) -> None:
    params = random_params(SMALL)
    params["norm"]["bias"][3] = np.nan
    write_weights(tmp_path / "w.npz", params, SMALL)
    weights = open_weights(tmp_path / "w.npz")
    np.asarray(weights.params["norm"]["scale"])
    message = refusal(np.asarray, weights.params["norm"]["bias"])
    assert "NaN or infinite values in Transformer/encoder_norm/bias" in message


def test_a_run_adds_to_a_description_without_breaking_its_checksum(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.npz", random_params(SMALL), SMALL)
    file = tmp_path / "w.json"
    stated = json.loads(file.read_text())
    # As the weights of a run get the digest of their file.
    file.write_text(json.dumps(sealed(stated | {"sha256": "0123"})))
    assert load_model(weights=tmp_path / "w.npz").config.num_classes == SMALL.num_classes
    file.write_text(json.dumps(stated | {"sha256": "0123"}))
    assert "is damaged, or was changed by hand" in refusal(load_model, weights=tmp_path / "w.npz")
