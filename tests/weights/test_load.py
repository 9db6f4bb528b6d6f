import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from safetensors.numpy import save_file

import vit_jax
from tests.small_models import CROP, assert_same, random_params, refusal
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import apply_model, model_params
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.weights.files import write_weights
from vit_jax.weights.load import load_model

PREPROCESSING = dataclasses.replace(CROP, short_side=72)
MODEL = ModelConfig(
    "ViT-mu/16", image_size=64, num_classes=5, gelu="exact", preprocessing=PREPROCESSING
).completed()
NAMES = ("a", "b", "c", "d", "e")


def _changed(**changes: Any) -> ModelConfig:
    return dataclasses.replace(MODEL, **changes)


def _write(
    directory: Path,
    model: Any = MODEL,
    names: tuple[str, ...] | None = NAMES,
    described: bool = True,
) -> tuple[Path, dict[str, Any]]:
    params = random_params(model)
    path = directory / "weights.npz"
    write_weights(path, params, model, class_names=names)
    if not described:
        path.with_suffix(".json").unlink()
    return path, params


def _logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "vit_jax.weights.load"]


def _refused(path: Any, *args: Any, **options: Any) -> str:
    message = refusal(load_model, *args, weights=path, **options)
    assert str(path) in message
    return message


# The model of the file.


def test_the_file_s_own_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path, params = _write(tmp_path)
    for source in (path, str(path), tmp_path):  # a file or a run's directory
        model = load_model(weights=source)
        assert_same(model_params(model), params)
        assert (model.config, model.class_names) == (MODEL, NAMES)
    assert _logged(caplog) == [f"weights of {path}"] * 3
    assert vit_jax.load_model is load_model


@pytest.mark.parametrize("layout", ["timm", "huggingface"])
def test_every_layout_gives_the_same_function(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, random_params(MODEL), MODEL, layout=layout)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    expected = jax.jit(apply_model(MODEL))(random_params(MODEL), images)
    model = load_model("ViT-mu/16", weights=path)
    np.testing.assert_array_equal(jax.jit(lambda x: model(x))(images), expected)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("name", ["ViT-mu/16", "mu16", "vit-mu_16"])
def test_a_name_is_checked_against_the_file(tmp_path: Path, name: str) -> None:
    path, _ = _write(tmp_path)
    assert load_model(name, weights=path).config == _changed(name=name)


@pytest.mark.parametrize("name", ["ViT-Ti/16", "ViT-B/16", "ViT-Ti/32"])
def test_another_name_is_refused(tmp_path: Path, name: str) -> None:
    path, _ = _write(tmp_path)
    message = _refused(path, name)
    assert "holds ViT-mu/16 (depth=1, width=32, mlp_dim=128, num_heads=2)" in message
    assert name in message


def test_a_size_without_a_name_is_no_named_one(tmp_path: Path) -> None:
    path, params = _write(tmp_path, _changed(depth=2))
    assert "depth=2" in _refused(path, "ViT-mu/16")
    assert_same(model_params(load_model(weights=path)), params)


def test_options_of_the_model(tmp_path: Path) -> None:
    path, _ = _write(tmp_path)
    model = load_model(weights=path, dtype="bfloat16", scan=False, dropout=0.1)
    assert model.config == _changed(dtype="bfloat16", scan=False, dropout=0.1)
    assert {leaf.dtype for leaf in jax.tree.leaves(model_params(model))} == {jnp.dtype("float32")}
    message = refusal(load_model, weights=path, dropuot=0.1)
    assert "dropuot" in message and "did you mean 'dropout'" in message


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
def test_what_makes_another_function_is_refused(
    tmp_path: Path, key: str, trained: object, wanted: Any
) -> None:
    path, _ = _write(tmp_path, _changed(**{key: trained}))
    message = _refused(path, **{key: wanted})
    assert f"{key}={trained}, the model has {wanted}" in message
    assert f"--config.model.{key}={trained}" in message


def test_another_width_or_depth_is_refused_with_all_shapes(tmp_path: Path) -> None:
    path, _ = _write(tmp_path)
    assert "blocks/norm1/scale: file (1, 32), model (2, 32)" in _refused(path, depth=2)
    message = _refused(path, num_heads=4)
    for part in ("query", "key", "value"):
        name = f"blocks/attention/{part}/kernel"
        assert f"{name}: file (1, 32, 2, 16), model (1, 32, 4, 8)" in message
    assert "registers: file none, model (1, 2, 32)" in _refused(path, registers=2)


# Another size.


def test_another_size_that_is_no_square(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path, params = _write(tmp_path)
    model = load_model(weights=path, image_size=(96, 128))
    # The crop keeps its share of 64 / 72.
    preprocessing = dataclasses.replace(PREPROCESSING, short_side=108)
    assert model.config == _changed(image_size=(96, 128), preprocessing=preprocessing)
    assert model.class_names == NAMES
    loaded = model_params(model)
    positions = np.asarray(loaded.pop("pos_embedding"))
    grid = params["pos_embedding"][0, 1:].reshape(4, 4, -1)
    expected = scipy.ndimage.zoom(grid, (6 / 4, 8 / 4, 1), order=1)
    np.testing.assert_array_equal(positions[0, 0], params["pos_embedding"][0, 0])
    np.testing.assert_allclose(positions[0, 1:], expected.reshape(48, -1), atol=1e-6)
    del params["pos_embedding"]
    assert_same(loaded, params)
    assert _logged(caplog) == [f"weights of {path}; positions 4x4 -> 6x8"]
    bicubic = load_model(weights=path, image_size=(96, 128), position_resize="bicubic")
    assert np.abs(model_params(bicubic)["pos_embedding"] - positions).max() > 0.1


@pytest.mark.parametrize(
    ("image_size", "short_side"), [(32, 36), (64, 72), (224, 252), ((80, 64), 72), ((40, 224), 45)]
)
def test_the_crop_keeps_its_share(tmp_path: Path, image_size: Any, short_side: int) -> None:
    path, _ = _write(tmp_path)
    config = load_model(weights=path, image_size=image_size).config
    assert config.preprocessing == dataclasses.replace(PREPROCESSING, short_side=short_side)
    own = load_model(weights=path, image_size=image_size, preprocessing=PreprocessingConfig())
    assert own.config.preprocessing == PreprocessingConfig()


def test_as_many_patches_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    squash = {"preprocessing": PreprocessingConfig()}
    # Without a description, as for a released file, 6 x 6 positions are taken for a square.
    path, params = _write(tmp_path, _changed(image_size=96, **squash), described=False)
    model = load_model(weights=path, image_size=(64, 144))
    expected = scipy.ndimage.zoom(
        params["pos_embedding"][0, 1:].reshape(6, 6, -1), (4 / 6, 9 / 6, 1), order=1
    )
    positions = np.asarray(model_params(model)["pos_embedding"])
    np.testing.assert_allclose(positions[0, 1:], expected.reshape(36, -1), atol=1e-6)
    assert "positions 6x6 -> 4x9" in _logged(caplog)[0]
    # With a description they are as it states.
    path, params = _write(tmp_path, _changed(image_size=(64, 144)))
    assert_same(model_params(load_model(weights=path, image_size=(64, 144))), params)
    model = load_model(weights=path, image_size=(144, 64))
    expected = scipy.ndimage.zoom(
        params["pos_embedding"][0, 1:].reshape(4, 9, -1), (9 / 4, 4 / 9, 1), order=1
    )
    positions = np.asarray(model_params(model)["pos_embedding"])
    np.testing.assert_allclose(positions[0, 1:], expected.reshape(36, -1), atol=1e-6)
    assert "positions 4x9 -> 9x4" in _logged(caplog)[-1]


def test_another_patch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Patches grow with the image: bilinearly resized, they get the embeddings that they had."""
    caplog.set_level(logging.INFO)
    path, params = _write(tmp_path)
    model = load_model("ViT-mu/24", weights=path, image_size=96)
    assert (model.config.name, model.config.patch_size) == ("ViT-mu/24", 24)
    assert _logged(caplog) == [f"weights of {path}; patches 16x16 -> 24x24"]
    patches = np.random.default_rng(1).normal(size=(16, 16, 16, 3)).astype(np.float32)
    large = jax.image.resize(patches, (16, 24, 24, 3), "bilinear")

    def embed(kernel: np.ndarray, patches: np.ndarray) -> np.ndarray:
        return np.einsum("bhwc,hwcd->bd", patches, np.asarray(kernel), dtype=np.float64)

    expected = embed(params["embedding"]["kernel"], patches)
    actual = embed(model_params(model)["embedding"]["kernel"], large)
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


# The head.


def test_another_number_of_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path, params = _write(tmp_path)
    model = load_model(weights=path, num_classes=3)
    assert (model.config, model.class_names) == (_changed(num_classes=3), None)
    np.testing.assert_array_equal(model(jnp.ones((2, 64, 64, 3))), np.zeros((2, 3)))
    assert _logged(caplog) == [f"weights of {path}; head 5 -> 3 classes, zero-initialised"]
    loaded = model_params(model)
    del loaded["head"], params["head"]
    assert_same(loaded, params)


def test_no_head_gives_features(tmp_path: Path) -> None:
    path, params = _write(tmp_path)
    model = load_model(weights=path, num_classes=0)
    assert (model.config, model.class_names) == (_changed(num_classes=0), None)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    whole = jax.jit(apply_model(MODEL), static_argnames="capture")
    _, captured = whole(params, images, capture=("features",))
    features = jax.jit(lambda x: model(x))(images)
    np.testing.assert_allclose(features, captured["features"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("described", [True, False])
def test_a_file_without_a_head(tmp_path: Path, described: bool) -> None:
    headless = _changed(num_classes=0, gelu="tanh")
    path, params = _write(tmp_path, headless, described=described)
    model = load_model(weights=path)
    assert (model.config.num_classes, model.class_names) == (0, None)
    assert_same(model_params(model), params)
    model = load_model(weights=path, num_classes=4)
    np.testing.assert_array_equal(model(jnp.ones((1, 64, 64, 3))), np.zeros((1, 4)))


def test_the_representation_layer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path, params = _write(tmp_path, _changed(representation_size=24))
    kept = load_model(weights=path)
    assert_same(model_params(kept), params)
    same = load_model(weights=path, num_classes=5)
    assert_same(model_params(same), params)
    assert len(_logged(caplog)) == 2 and not any(";" in line for line in _logged(caplog))

    dropped = load_model(weights=path, num_classes=3)
    assert dropped.config.representation_size is None
    loaded = model_params(dropped)
    assert "pre_logits" not in loaded and loaded["head"]["kernel"].shape == (32, 3)
    notes = "pre_logits dropped; head 5 -> 3 classes, zero-initialised"
    assert _logged(caplog)[-1] == f"weights of {path}; {notes}"

    asked = load_model(weights=path, num_classes=3, representation_size=24)
    loaded = model_params(asked)
    assert_same(loaded["pre_logits"], params["pre_logits"])
    assert not loaded["head"]["kernel"].any() and loaded["head"]["kernel"].shape == (24, 3)
    features = load_model(weights=path, num_classes=0, representation_size=24)
    assert features(jnp.ones((1, 64, 64, 3))).shape == (1, 24)
    # A head that was trained on the layer is worth nothing without it.
    without = load_model(weights=path, representation_size=None)
    assert not model_params(without)["head"]["kernel"].any()
    message = _refused(path, representation_size=16, num_classes=3)
    assert "pre_logits/kernel: file (32, 24), model (32, 16)" in message


# What is assumed, and what is damaged.


def test_what_is_assumed_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path, params = _write(tmp_path, _changed(gelu="tanh"), described=False)
    model = load_model(weights=path)
    assert_same(model_params(model), params)
    assert model.config.preprocessing == PreprocessingConfig()
    read, said = _logged(caplog)
    assert read == f"weights of {path}"
    assumed = "gelu=tanh, norm_epsilon=1e-06, mean=[0.5, 0.5, 0.5]"
    assert f"assumed: {assumed}" in said


def test_nan_never_comes_in(tmp_path: Path) -> None:
    params = random_params(MODEL)
    params["blocks"]["mlp"]["dense1"]["bias"][0, 3] = np.nan
    for path, layout in (("w.npz", "google"), ("w.safetensors", "timm")):
        write_weights(tmp_path / path, params, MODEL, layout=layout)
        message = _refused(tmp_path / path, num_classes=3)
        assert "NaN or infinite values in " in message
        assert "MlpBlock_3/Dense_0/bias" in message or "blocks.0.mlp.fc1.bias" in message


def test_damage_is_found_when_all_is_read(tmp_path: Path) -> None:
    path, params = _write(tmp_path)
    whole = bytearray(path.read_bytes())
    value = params["embedding"]["kernel"].tobytes()
    whole[whole.index(value) + 5] ^= 0x40
    path.write_bytes(whole)
    assert "CRC" in _refused(path)


def test_names_that_are_missing_are_all_listed(tmp_path: Path) -> None:
    path, _ = _write(tmp_path)
    with np.load(path) as file:
        flat = dict(file)
    for name in ("Transformer/encoder_norm/scale", "head/bias", "embedding/bias"):
        del flat[name]
    np.savez(path, **flat)
    message = _refused(path)
    for name, shape in (("norm/scale", (32,)), ("head/bias", (5,)), ("embedding/bias", (32,))):
        assert f"{name}: file none, model {shape}" in message


def test_a_resnet(tmp_path: Path) -> None:
    names = {"conv1.weight": (64, 3, 7, 7), "bn1.running_mean": (64,), "fc.weight": (1000, 512)}
    save_file(
        {name: np.zeros(shape, np.float32) for name, shape in names.items()},
        tmp_path / "resnet18.safetensors",
    )
    message = _refused(tmp_path / "resnet18.safetensors")
    assert all(f"{name} {shape}" in message for name, shape in names.items())


def test_files_that_are_not_there_or_not_weights(tmp_path: Path) -> None:
    assert "no such file" in _refused(tmp_path / "absent.npz")
    (tmp_path / "w.pth").write_bytes(b"\x80\x04")
    assert "pickles" in _refused(tmp_path / "w.pth")
    for name in ("config.json", "lock"):
        (tmp_path / name).write_text("{}")
    assert "has not ended" in _refused(tmp_path)
    (tmp_path / "config.json").unlink()
    assert "a directory without weights" in _refused(tmp_path)
