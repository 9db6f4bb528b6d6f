"""Models of torch and ours with random parameters, each of which matters, and their outputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx, traverse_util
from PIL import Image

import vit_jax
from vit_jax.models.functional import model_params


def redrawn_module(module: Any) -> Any:
    """The module in evaluation mode, its parameters drawn anew: no zeros, no ones."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.2 * noise + name.endswith("weight"))
            elif name.endswith("weight"):
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:  # the class token, registers, positions
                parameter.copy_(0.5 * noise)
    return module.eval()


def redrawn_model(name: str, **options: Any) -> Any:
    """A model of ours, its parameters drawn anew: no zeros, no ones."""
    # Its own initial values are never computed.
    abstract = nnx.eval_shape(lambda: vit_jax.create_model(name, **options))
    rng = np.random.default_rng(0)
    width = abstract.config.size.width
    flat = traverse_util.flatten_dict(model_params(abstract))
    for path, leaf in flat.items():
        noise = rng.standard_normal(leaf.shape, np.float32)
        if path[-1] == "kernel":
            drawn = noise * np.float32(width**-0.5)
        elif path[-1] in ("scale", "bias"):
            drawn = 0.2 * noise + (path[-1] == "scale")
        else:  # the class token, registers, positions
            drawn = 0.5 * noise
        flat[path] = jnp.asarray(drawn, jnp.float32)
    return nnx.merge(nnx.graphdef(abstract), traverse_util.unflatten_dict(flat))


def images_for(model: Any, batch: int = 2) -> Any:
    """Random images [batch, height, width, 3] for a model of ours, values in [-1, 1]."""
    shape = (batch, *model.config.input_size, 3)
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def outputs(model: Any, images: np.ndarray) -> Any:
    """What a model of ours returns."""
    with jax.default_matmul_precision("highest"):
        return np.asarray(nnx.jit(lambda model, images: model(images))(model, images))


def module_outputs(module: Any, images: np.ndarray) -> Any:
    """What a module returns for images [batch, height, width, 3]."""
    with torch.inference_mode():
        return module(torch.from_numpy(images).permute(0, 3, 1, 2))


def assert_close(actual: Any, expected: Any, bar: float = 1e-4) -> None:
    """Equal but for rounding, and not for being small."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert expected.std() > 0.2
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bar)


def photograph(width: Any, height: Any) -> Any:
    """A smooth random image in 8-bit RGB with some detail."""
    rng = np.random.default_rng(2)
    coarse, fine = (
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for size in ((5, 7), (height // 3, width // 3))
    )
    return Image.blend(coarse, fine, 0.3)
