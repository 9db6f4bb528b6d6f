"""Named sizes of all families of models, and the spellings in use for them."""

import functools
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from vit_jax.errors import UserError

# vit: the plain Vision Transformer. hybrid: a ViT on the features of a ResNet (section 3.1).
# resnet: the paper's baseline, after BiT (arXiv 1912.11370). mixer: MLP-Mixer (arXiv 2105.01601).
# axial_vit and axial_resnet: attention along rows and columns (appendix D.6).
FamilyName = Literal["vit", "hybrid", "resnet", "mixer", "axial_vit", "axial_resnet"]
# Whether a residual unit normalises and activates after its convolutions (ResNet v1) or before them
# (ResNet v2).
ActivationOrder = Literal["post", "pre"]


class Size(NamedTuple):
    """Shape of an encoder: number of blocks, widths in units, and attention heads."""

    depth: int
    width: int
    mlp_dim: int
    num_heads: int


class MixerSize(NamedTuple):
    """Shape of a Mixer: number of blocks and widths in units; `mlp_dim` mixes channels."""

    depth: int
    width: int
    mlp_dim: int
    token_mlp_dim: int


class ResNetSize(NamedTuple):
    """Shape of a ResNet: units in each stage, and the factor of all widths (64 at the root)."""

    stages: tuple[int, ...]
    width_factor: float

    @property
    def root_width(self) -> int:
        """Channels of the root."""
        return int(64 * self.width_factor)

    @property
    def channels(self) -> int:
        """Channels of the last stage's output; the root's if there are no stages."""
        stages = len(self.stages)
        return self.root_width * 4 * 2 ** (stages - 1) if stages else self.root_width

    @property
    def stride(self) -> int:
        """Pixels a side of the image for a position of the output."""
        return 4 * 2 ** max(len(self.stages) - 1, 0)


class Name(NamedTuple):
    """What a model's name tells.

    Attributes:
      size: key into `SIZES`, or of a Mixer into `MIXER_SIZES`; empty for a ResNet.
      blocks: the shape of that size; None for a ResNet.
      patch_size: pixels a side that become one token; 0 for a ResNet.
      has_backbone: whether there is a ResNet.
      stages: units in each stage of the ResNet; None if there is no ResNet, or if the name does not
        tell the stages.
      width_factor: the factor of the ResNet's widths.
      order: the order of the ResNet's units.
    """

    family: FamilyName
    size: str = ""
    blocks: Size | MixerSize | None = None
    patch_size: int = 0
    has_backbone: bool = False
    stages: tuple[int, ...] | None = None
    width_factor: float = 1.0
    order: ActivationOrder = "post"


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

# Table 1 of MLP-Mixer.
MIXER_SIZES: dict[str, MixerSize] = {
    "S": MixerSize(8, 512, 2048, 256),
    "B": MixerSize(12, 768, 3072, 384),
    "L": MixerSize(24, 1024, 4096, 512),
    "H": MixerSize(32, 1280, 5120, 640),
}
# Units in each stage, by the number of layers.
RESNET_STAGES: dict[int, tuple[int, ...]] = {
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}

# Those of the paper and those that were released.
_HYBRIDS = (
    *("R+ViT-Ti/16", "R26+ViT-S/32", "R26+ViT-B/32"),
    *("R50+ViT-B/16", "R50+ViT-B/32", "R50+ViT-L/16", "R50+ViT-L/32"),
)
_RESNETS = (
    *("R26x1", "R50x1", "R50x2", "R50x3", "R101x1", "R101x3"),
    *("R152x1", "R152x2", "R152x4", "R200x3"),
)
_MIXERS = ("S/32", "S/16", "B/32", "B/16", "L/32", "L/16", "H/14")
# Those of Figure 13.
_AXIAL = ("AxialViT-B/32", "AxialViT-B/16", "AxialResNet-50")


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.ASCII)


_PATCH = r"(?P<patch>[1-9][0-9]*)"
_ENCODER = rf"(?P<size>{'|'.join(SIZES)})[-_/]?{_PATCH}"
_LAYERS = rf"(?P<layers>{'|'.join(map(str, RESNET_STAGES))})"
_FACTOR = r"x(?P<factor>[0-9]+(?:\.[0-9]+)?)"
_BY_LOWER_CASE = {size.lower(): size for size in SIZES}


def _size(spelling: str) -> str:
    """The key into `SIZES`; only g and G differ in their case alone."""
    return spelling if spelling in SIZES else _BY_LOWER_CASE[spelling.lower()]


def _vit(parts: dict[str, str]) -> Name:
    size = _size(parts["size"])
    return Name("vit", size, SIZES[size], int(parts["patch"]))


def _axial_vit(parts: dict[str, str]) -> Name:
    return _vit(parts)._replace(family="axial_vit")


def _hybrid(parts: dict[str, str]) -> Name:
    size, patch, factor = _size(parts["size"]), int(parts["patch"]), float(parts["factor"] or 1)
    if parts["layers"] is None:
        return Name("hybrid", size, SIZES[size], 2 * patch, True, (), factor)
    stages = RESNET_STAGES[int(parts["layers"])]
    folded = (*stages[:2], stages[2] + stages[3])
    stages_of_patch = {16: folded, 32: stages}.get(patch)
    return Name("hybrid", size, SIZES[size], patch, True, stages_of_patch, factor)


def _resnet(parts: dict[str, str]) -> Name:
    order: ActivationOrder = "pre" if parts["bit"] else "post"
    stages = RESNET_STAGES[int(parts["layers"])]
    factor = float(parts["factor"])
    return Name("resnet", has_backbone=True, stages=stages, width_factor=factor, order=order)


def _axial_resnet(parts: dict[str, str]) -> Name:
    return _resnet({**parts, "bit": "", "factor": "1"})._replace(family="axial_resnet")


def _mixer(parts: dict[str, str]) -> Name:
    size = _size(parts["size"])
    return Name("mixer", size, MIXER_SIZES[size], int(parts["patch"]))


# The spellings, and what they tell. They exclude each other.
_NAMES: tuple[tuple[re.Pattern[str], Callable[[dict[str, str]], Name]], ...] = (
    (_compile(rf"(?:vit[-_])?{_ENCODER}"), _vit),
    (_compile(rf"r(?:{_LAYERS}(?:{_FACTOR})?)?[+_](?:vit[-_])?{_ENCODER}"), _hybrid),
    (_compile(rf"(?P<bit>bit[-_])?r{_LAYERS}{_FACTOR}"), _resnet),
    (_compile(rf"axial[-_]?vit[-_]{_ENCODER}"), _axial_vit),
    (_compile(rf"axial[-_]?resnet[-_]?{_LAYERS}"), _axial_resnet),
    (_compile(rf"mixer[-_](?P<size>{'|'.join(MIXER_SIZES)})[-_/]?{_PATCH}"), _mixer),
)


def list_models() -> list[str]:
    """Names of all models, in the spelling of the paper, such as `ViT-B/16`."""
    vits = [f"ViT-{size}/{patch}" for size in SIZES for patch in PATCHES]
    bits = [f"BiT-{name}" for name in _RESNETS]
    return [*vits, *_HYBRIDS, *_RESNETS, *bits, *(f"Mixer-{size}" for size in _MIXERS), *_AXIAL]


def heads_of_width(width: int) -> int:
    """Attention heads of the named size of this width; otherwise one for every 64 channels."""
    named = (size.num_heads for size in SIZES.values() if size.width == width)
    return next(named, max(width // 64, 1))


@functools.cache
def parse_name(name: str) -> Name:
    """Reads a model's name.

    - `ViT-B/16`, `ViT-B_16`, `B/16` or `b16`. Any patch side is a name: `ViT-Ti/4` is the tiny
      encoder on patches of 4 x 4 pixels.
    - `R50+ViT-B/16`, `R50_B_16` or `R50x1+ViT-B/16`: a hybrid. The last number is the pixels a side
      that become a token. With /32 the ResNet has its four stages; with /16 the units of the fourth
      stage are in the third. `R+ViT-Ti/16` has only the root of a ResNet and, as it was released,
      twice the pixels that its name tells (8x8 patches of the root's output).
    - `R50x1`: a ResNet. The number after the x is the factor of its widths, and its units are those
      of the hybrids; `BiT-R50x1` has those of BiT, which normalise before they convolve.
    - `Mixer-B/16`.
    - `AxialViT-B/16`: a ViT that attends along rows, then along columns.
    - `AxialResNet-50`: a ResNet with attention along both in place of its 3x3 convolutions.

    Raises:
      UserError: no model has this name.
    """
    for pattern, read in _NAMES:
        if match := pattern.fullmatch(name):
            return read(match.groupdict())
    raise UserError(
        f"model {name!r}: no such model; write ViT-SIZE/PATCH, such as ViT-B/16, where SIZE is "
        f"one of {', '.join(SIZES)}; or as in R50+ViT-B/16, R50x1, BiT-R50x1, Mixer-B/16, "
        "AxialViT-B/16, AxialResNet-50"
    )
