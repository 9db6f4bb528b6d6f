import dataclasses
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params, apply_model
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.schema import to_dict
from vit_jax.weights.files import write_weights
from vit_jax.weights.load import load_params

PREPROCESSING = PreprocessingConfig(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    resize="short_side",
    short_side=72,
    interpolation="bicubic",
    antialias=True,
)
MODEL = ModelConfig("ViT-mu/16", image_size=64, num_classes=5, preprocessing=PREPROCESSING)


def _changed(**changes):
    return dataclasses.replace(MODEL, **changes)


def _params(model):
    rng = np.random.default_rng(0)
    shapes = abstract_params(model)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def _write(directory, model=MODEL, described=True, **changes):
    """Writes weights of a model; `changes` go into its description."""
    params = _params(model)
    path = directory / "weights.npz"
    write_weights(path, params, {"model": to_dict(model) | changes, "layout": "google"})
    if not described:
        path.with_suffix(".json").unlink()
    return path, params


def _assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def _refused(path, model):
    with pytest.raises(UserError) as error:
        load_params(path, model)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


def _logged(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "vit_jax.weights.load"]


def test_the_same_model_gets_the_weights_as_they_are(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path, params = _write(tmp_path)
    for source in (path, str(path), tmp_path):  # a file or a run's directory
        loaded, model = load_params(source, MODEL)
        _assert_same(loaded, params)
        assert model == MODEL
    assert _logged(caplog) == [f"weights of {path}"] * 2 + [f"weights of {tmp_path}"]


def test_positions_are_resized_and_the_head_replaced_and_this_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path, params = _write(tmp_path)
    target = _changed(
        image_size=(96, 128), num_classes=3, dropout=0.1, preprocessing=PreprocessingConfig()
    )
    loaded, model = load_params(path, target)
    assert model == target

    positions = loaded.pop("pos_embedding")
    grid = params["pos_embedding"][0, 1:].reshape(4, 4, -1)
    expected = scipy.ndimage.zoom(grid, (6 / 4, 8 / 4, 1), order=1)
    np.testing.assert_array_equal(positions[0, 0], params["pos_embedding"][0, 0])
    np.testing.assert_allclose(positions[0, 1:], expected.reshape(48, -1), atol=1e-6)
    head = loaded.pop("head")
    assert head["kernel"].shape == (32, 3) and head["bias"].shape == (3,)
    assert not head["kernel"].any() and not head["bias"].any()
    del params["pos_embedding"], params["head"]
    _assert_same(loaded, params)

    (message,) = _logged(caplog)
    assert message.startswith(f"weights of {path}; ")
    assert "positions 4x4 -> 6x8" in message
    assert "head 5 -> 3 classes, zero-initialised" in message


def test_the_description_tells_a_grid_that_is_no_square(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path, params = _write(tmp_path, _changed(image_size=(64, 144), preprocessing=None))
    loaded, _ = load_params(path, _changed(image_size=(64, 144)))
    _assert_same(loaded, params)
    # As many patches, elsewhere; and the file of 36 alone would pass for a square.
    loaded, _ = load_params(path, _changed(image_size=(144, 64), preprocessing=None))
    expected = scipy.ndimage.zoom(
        params["pos_embedding"][0, 1:].reshape(4, 9, -1), (9 / 4, 4 / 9, 1), order=1
    )
    np.testing.assert_allclose(loaded["pos_embedding"][0, 1:], expected.reshape(36, -1), atol=1e-6)
    assert "positions 4x9 -> 9x4" in _logged(caplog)[-1]


def test_an_image_size_that_the_patch_does_not_divide(tmp_path):
    path, params = _write(tmp_path, _changed(image_size=70))
    loaded, _ = load_params(path, MODEL)  # 70 // 16 == 64 // 16
    _assert_same(loaded, params)


def test_parameters_fit_the_model_they_are_returned_with(tmp_path):
    path, _ = _write(tmp_path)
    params, model = load_params(path, _changed(image_size=48, preprocessing=None, num_classes=2))
    logits = apply_model(model)(params, jnp.ones((1, 48, 48, 3)))
    np.testing.assert_array_equal(logits, np.zeros((1, 2)))  # the head is zero


# Preprocessing.


def test_preprocessing_is_that_of_the_weights(tmp_path):
    path, _ = _write(tmp_path)
    _, model = load_params(path, _changed(preprocessing=None))
    assert model == MODEL


def test_preprocessing_that_the_model_has_is_kept(tmp_path):
    path, _ = _write(tmp_path)
    own = _changed(preprocessing=PreprocessingConfig())
    assert load_params(path, own)[1] == own


def test_weights_need_no_description(tmp_path):
    path, params = _write(tmp_path, described=False)
    loaded, model = load_params(path, _changed(preprocessing=None))
    _assert_same(loaded, params)
    assert model.preprocessing is None


def test_a_description_may_have_no_preprocessing(tmp_path):
    path, _ = _write(tmp_path, _changed(preprocessing=None))
    assert load_params(path, _changed(preprocessing=None))[1].preprocessing is None


def test_a_description_of_another_kind_is_ignored(tmp_path):
    path, params = _write(tmp_path)
    path.with_suffix(".json").write_text(json.dumps({"class_names": ["cat"]}))
    loaded, model = load_params(path, _changed(preprocessing=None))
    _assert_same(loaded, params)
    assert model.preprocessing is None


def test_wrong_preprocessing_is_named(tmp_path):
    path, _ = _write(tmp_path, preprocessing={"mean": [0.5, 0.5, 0.5], "deviation": [1, 1, 1]})
    message = _refused(path, _changed(preprocessing=None))
    assert "model.preprocessing.deviation" in message


def test_a_crop_that_does_not_fit_the_new_size_is_refused(tmp_path):
    path, _ = _write(tmp_path)
    message = _refused(path, _changed(image_size=96, preprocessing=None))
    assert "preprocessing.short_side 72 is below the image_size 96x96" in message


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"short_side": 256}, "short_side would be ignored"),
        ({"resize": "short_side", "short_side": 0}, "at least 1 pixel"),
        ({"interpolation": "bicubic"}, "antialias=True"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be positive"),
    ],
)
def test_preprocessing_that_makes_no_sense(values, problem):
    with pytest.raises(UserError, match=problem):
        PreprocessingConfig(**values)


# Mismatch.


@pytest.mark.parametrize(
    ("key", "trained", "wanted"),
    [
        ("gelu", "exact", "tanh"),
        ("norm_epsilon", 1e-05, 1e-06),
        ("pooling", "gap_timm", "token"),
        ("pooling", "token", "gap"),
        ("positions", "learned", "sincos2d"),
    ],
)
def test_what_makes_another_function_is_refused_with_the_flag(tmp_path, key, trained, wanted):
    path, _ = _write(tmp_path, _changed(**{key: trained}))
    message = _refused(path, _changed(**{key: wanted}))
    assert f"{key}={trained}, the model has {wanted}" in message
    assert f"--config.model.{key}={trained}" in message


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    path, _ = _write(tmp_path)
    assert "embedding/kernel" in _refused(path, _changed(name="ViT-mu/8"))
    assert "blocks/" in _refused(path, _changed(depth=2))
    message = _refused(path, _changed(num_heads=4))
    assert "blocks/attention/query/kernel: file (1, 32, 2, 16), model (1, 32, 4, 8)" in message
    path, _ = _write(tmp_path, described=False)
    assert "cls: file (1, 1, 32), model none" in _refused(path, _changed(pooling="gap"))


def test_a_run_that_has_not_ended(tmp_path):
    assert "not ended" in _refused(tmp_path, MODEL)
