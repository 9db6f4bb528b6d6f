"""Flips, Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) on the device.

Each row of the global batch is mixed with the row before it, so that a batch that is split over
devices sends one row from each device to its neighbour. Labels stay as they are: the losses are
linear in their targets, so the loss of a mixed target is the mean of both labels' losses, weighted
by share.
"""

import jax
import jax.numpy as jnp
from jax import Array


def random_flip(key: Array, images: Array) -> Array:
    """Mirrors each image [batch, height, width, channels] left to right with probability 1/2."""
    flipped = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def draw_mix(
    key: Array, batch: dict[str, Array], *, mixup: float, cutmix: float
) -> dict[str, Array]:
    """Gives each row its partner, and draws how the step mixes.

    A step draws once for all rows, as big_vision does. With both kinds on, it takes either one with
    probability 1/2, as timm does. A row whose partner does not count stays as it is.

    Args:
      batch: images [batch, height, width, 3], labels [batch, ...] and weights [batch], where
        0 marks a row that does not count.
      mixup: a of Beta(a, a), from which the ratio of two images is drawn; 0 is off.
      cutmix: the same for the area of the box that is the partner's; 0 is off.

    Returns:
      The batch with more arrays. partner_images and partner_labels: each row's partner. ratio,
      float32 [batch]: the row's own part of each pixel. box, int32 [batch, 4]: top, left, bottom
      and right of the box that is the partner's alone. share, float32 [batch]: the row's own part
      of the whole image.
    """
    images, labels, weights = (batch[name] for name in ("images", "labels", "weights"))
    height, width = images.shape[1:3]
    ratio, box = _draw(key, height, width, mixup, cutmix)
    top, left, bottom, right = box
    share = ratio * (1 - (bottom - top) * (right - left) / (height * width))
    alone = jnp.roll(weights, 1) == 0
    return batch | {
        "partner_images": jnp.roll(images, 1, axis=0),
        "partner_labels": jnp.roll(labels, 1, axis=0),
        "ratio": jnp.where(alone, 1, ratio),
        "box": jnp.where(alone[:, None], 0, box),
        "share": jnp.where(alone, 1, share),
    }


def apply_mix(batch: dict[str, Array]) -> Array:
    """Mixes the images of paired rows: float32 [batch, height, width, 3], from 0 to 255.

    It is applied to a micro-batch at a time, so that the whole batch stays in uint8. Normalising
    the mixed image equals mixing normalised images, since the map is linear.
    """
    height, width = batch["images"].shape[1:3]
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    top, left, bottom, right = (x[:, None, None] for x in batch["box"].T)
    in_box = (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)
    own = jnp.where(in_box, 0, batch["ratio"][:, None, None])[..., None]
    images, partners = (batch[k].astype(jnp.float32) for k in ("images", "partner_images"))
    return own * images + (1 - own) * partners


def _draw(key: Array, height: int, width: int, mixup: float, cutmix: float) -> tuple[Array, Array]:
    """Draws one step's mixing: the row's own share of each pixel, float32, and the partner's box.

    The box is int32 [4]: top, left, bottom, right. Mixup has an empty box, CutMix a share of 1.
    """
    choice_key, part_key, place_key = jax.random.split(key, 3)
    # A kind that is off is never chosen.
    cuts = jax.random.bernoulli(choice_key, 0.5 if mixup and cutmix else float(cutmix > 0))
    concentration = jnp.where(cuts, cutmix, mixup)
    part = jax.random.beta(part_key, concentration, concentration)
    # Mixup: the larger part is the row's own. Over all pairs it makes no difference.
    ratio = jnp.where(cuts, 1, jnp.maximum(part, 1 - part))
    return ratio, jnp.where(cuts, _box(place_key, part, height, width), 0)


def _box(key: Array, area: Array, height: int, width: int) -> Array:
    """A box of the image's aspect around a random pixel, cut off at the borders: int32 [4]."""
    spans = []
    for place_key, length in zip(jax.random.split(key), (height, width), strict=True):
        half = (jnp.sqrt(area) * length).astype(jnp.int32) // 2
        center = jax.random.randint(place_key, (), 0, length)
        spans.append((jnp.maximum(center - half, 0), jnp.minimum(center + half, length)))
    (top, bottom), (left, right) = spans
    return jnp.stack([top, left, bottom, right])
