"""Mixer; parity is in `test_parity.py`."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.small_models import Seen, random_params, refusal
from vit_jax import create_model
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params, apply_model, init_params

# 2 x 3 patches, so that tokens, channels and hidden units have different numbers.
SIZE = {"depth": 2, "width": 16, "mlp_dim": 24, "token_mlp_dim": 10}
MODEL = ModelConfig("Mixer-S/8", image_size=(16, 24), num_classes=5, **SIZE)
IMAGES = np.random.default_rng(1).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)


@functools.cache
def _params() -> Any:
    return jax.tree.map(lambda leaf: leaf * np.float32(0.4), random_params(MODEL))


def _run(images: np.ndarray = IMAGES, key: Any = None, capture: Any = (), **changes: Any) -> Any:
    model = dataclasses.replace(MODEL, **changes)
    return jax.jit(functools.partial(apply_model(model), key=key, capture=capture))(
        _params(), images
    )


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # models_test.py of google-research/vision_transformer, at 224 pixels and 1000 classes.
        ("Mixer-B/16", 59_880_472),
        ("Mixer-B/32", 60_293_428),
        ("Mixer-L/16", 208_196_168),
        # In millions, Table 1 of MLP-Mixer, without the head.
        ("Mixer-S/32", 19),
        ("Mixer-S/16", 18),
        ("Mixer-L/32", 206),
        ("Mixer-H/14", 431),
    ],
)
def test_parameter_counts(name: str, count: int) -> None:
    params = abstract_params(ModelConfig(name, num_classes=1000))
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    if count < 1000:
        total = round((total - math.prod(params["head"]["kernel"].shape)) / 1e6)
    assert total == count


def test_initial_values() -> None:
    config = ModelConfig("Mixer-S/16", image_size=64, num_classes=5, depth=2)
    params = traverse_util.flatten_dict(jax.jit(lambda: init_params(config, 0))(), sep="/")
    for path, leaf in params.items():
        if path.startswith("head") or path.endswith("bias"):
            assert not leaf.any(), path
        elif path.endswith("scale"):
            assert (leaf == 1).all(), path
        else:
            # LeCun, 1 / sqrt(inputs), as in the authors' code.
            inputs = math.prod(leaf.shape[path.startswith("blocks/") : -1])
            assert leaf.std() == pytest.approx(1 / math.sqrt(inputs), rel=0.05), path
    for path in ("token_mixing/dense1", "channel_mixing/dense2"):
        first, second = params[f"blocks/{path}/kernel"]
        assert (first != second).all()


def test_capture() -> None:
    logits, captured = _run(capture=["features", "tokens", "layers"])
    assert {name: array.shape for name, array in captured.items()} == {
        "features": (2, 16),
        "tokens": (2, 6, 16),
        "layers": (2, 2, 6, 16),
    }
    np.testing.assert_allclose(captured["features"], captured["tokens"].mean(1), atol=1e-5)
    last, norm = captured["layers"][-1], _params()["norm"]
    last = (last - last.mean(-1, keepdims=True)) / np.sqrt(last.var(-1, keepdims=True) + 1e-6)
    expected = last * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(captured["tokens"], expected, rtol=1e-3, atol=1e-4)
    head = _params()["head"]
    expected = captured["features"] @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    assert "no 'attention'" in refusal(_run, capture=["attention"])


def test_stochastic_depth() -> None:
    plain, key = _run(), jax.random.key(3)
    np.testing.assert_allclose(_run(stochastic_depth=0.5), plain, rtol=1e-4, atol=1e-5)
    scanned, unrolled = (_run(stochastic_depth=0.9, key=key, scan=scan) for scan in (True, False))
    np.testing.assert_allclose(scanned, unrolled, rtol=1e-4, atol=1e-5)
    # Nine of ten times both branches of the last block, and never the first block's, are skipped.
    images = np.repeat(IMAGES[:1], 200, axis=0)
    _, captured = _run(images, key, ["layers"], stochastic_depth=0.9)
    first, last = np.asarray(captured["layers"])
    np.testing.assert_allclose(first, np.broadcast_to(first[:1], first.shape), rtol=1e-4, atol=1e-4)
    skipped = (np.abs(last - first).max(axis=(1, 2)) == 0).mean()
    assert skipped == pytest.approx(0.81, abs=0.09)


def test_bfloat16_activations() -> None:
    seen = Seen()
    model = dataclasses.replace(MODEL, dtype="bfloat16")
    run = jax.jit(functools.partial(apply_model(model), placement=seen))
    logits = run(_params(), IMAGES)
    assert set(seen.activations) == {((2, 6, 16), jnp.dtype("bfloat16"))}
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - _run()).max() < 0.05 * np.abs(_run()).max()


def test_create_model() -> None:
    model = create_model("Mixer-S/16", image_size=32, num_classes=3, depth=1, head_bias=0.5)
    np.testing.assert_array_equal(model(jnp.ones((2, 32, 32, 3))), np.full((2, 3), 0.5))
    assert (model.config.gelu, model.config.norm_epsilon) == ("tanh", 1e-6)
    with pytest.raises(ValueError, match="images are 16x32"):
        model(jnp.ones((2, 16, 32, 3)))
