"""From encoded bytes to the pixels of a batch, on the host."""

from vit_jax.data.images.decoding import decode as decode
from vit_jax.data.images.errors import ImageError as ImageError
