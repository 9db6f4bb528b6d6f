"""Named sizes of the plain Vision Transformer and the spellings in use for them."""

import re
from typing import NamedTuple

from vit_jax.errors import UserError


class Size(NamedTuple):
    """Shape of an encoder: number of blocks, widths in units, and attention heads."""

    depth: int
    width: int
    mlp_dim: int
    num_heads: int


# B, L and H: Table 1 of the paper. Ti and S: released with the paper's code. mu, M, So400m, g, G
# and e: sizes of the authors' later models, as named in their public code.
SIZES: dict[str, Size] = {
    "mu": Size(1, 32, 128, 2),
    "Ti": Size(12, 192, 768, 3),
    "S": Size(12, 384, 1536, 6),
    "M": Size(12, 512, 2048, 8),
    "B": Size(12, 768, 3072, 12),
    "L": Size(24, 1024, 4096, 16),
    "So400m": Size(27, 1152, 4304, 16),
    "H": Size(32, 1280, 5120, 16),
    "g": Size(40, 1408, 6144, 16),
    "G": Size(48, 1664, 8192, 16),
    "e": Size(56, 1792, 15360, 16),
}
PATCHES = (8, 14, 16, 32)

_NAME = re.compile(rf"(?:vit[-_])?({'|'.join(SIZES)})[-_/]?([1-9][0-9]*)", re.IGNORECASE | re.ASCII)


def list_models() -> list[str]:
    """Names of all models, in the spelling of the paper, such as `ViT-B/16`."""
    return [f"ViT-{size}/{patch}" for size in SIZES for patch in PATCHES]


def heads_of_width(width: int) -> int:
    """Attention heads of the named sizes of this width; of others, one for 64 channels."""
    named = (size.num_heads for size in SIZES.values() if size.width == width)
    return next(named, max(width // 64, 1))


def parse_name(name: str) -> tuple[str, int]:
    """Reads a model's name: `ViT-B/16`, `ViT-B_16`, `B/16` or `b16`.

    Any patch side is a name: `ViT-Ti/4` is the tiny encoder on patches of 4 x 4 pixels.

    Returns:
      The key into `SIZES` and the side of a patch in pixels.

    Raises:
      UserError: the name is not one of a model.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        known = ", ".join(SIZES)
        raise UserError(
            f"model {name!r}: no such model; write ViT-SIZE/PATCH, such as ViT-B/16, "
            f"where SIZE is one of {known}"
        )
    spelling, patch = match.groups()
    # Only g and G differ in their case alone.
    size = spelling if spelling in SIZES else _BY_LOWER_CASE[spelling.lower()]
    return size, int(patch)


_BY_LOWER_CASE = {size.lower(): size for size in SIZES}
