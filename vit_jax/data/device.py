"""What is done to a batch of images on the device."""

import jax
import jax.numpy as jnp
from jax import Array

from vit_jax.preprocessing import PreprocessingConfig


def normalize(images: Array, preprocessing: PreprocessingConfig) -> Array:
    """[batch, height, width, 3] of 0 to 255 to the model's float32: (x / 255 - mean) / std."""
    mean, std = jnp.asarray(preprocessing.mean), jnp.asarray(preprocessing.std)
    scale, offset = 1 / (255 * std), mean / std
    return images.astype(jnp.float32) * scale - offset


def random_flip(key: Array, images: Array) -> Array:
    """Mirrors each image [batch, height, width, channels] left to right with probability 1/2."""
    flipped = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)
