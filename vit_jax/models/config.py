"""The `model` section of a config: everything that defines a model and the input it expects."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from vit_jax.errors import UserError
from vit_jax.models.checks import check
from vit_jax.models.dot_product import Implementation
from vit_jax.models.rematerialisation import Remat
from vit_jax.models.sizes import (
    MIXER_SIZES,
    SIZES,
    Family,
    MixerSize,
    ResNetSize,
    Size,
    UnitOrder,
    parse_name,
)
from vit_jax.preprocessing import PreprocessingConfig


@dataclass(frozen=True)
class ModelConfig:
    """A model by name, with what differs from the name.

    Not every family has every key: setting one that it has not is an error.
    """

    name: str = "ViT-B/16"
    # Pixels: a side, or (height, width).
    image_size: int | tuple[int, int] = 224
    # None takes the number of classes of the training data; 0 is no head: the model returns its
    # features.
    num_classes: int | None = None

    # Of the blocks of ViT (Table 1), hybrid and Mixer; None is as named. `mlp_dim` mixes channels.
    depth: int | None = None
    width: int | None = None
    mlp_dim: int | None = None
    # Of ViT and hybrid.
    num_heads: int | None = None
    # Of Mixer: hidden units that mix tokens.
    token_mlp_dim: int | None = None
    # Of ResNet and hybrid: units in each stage, and the factor of all widths, 64 at the root.
    stages: tuple[int, ...] | None = None
    width_factor: float | None = None

    # Where None stands in these four, it is that of the weights that training starts from, else
    # learned, token, tanh and 1e-6 (1e-5 in BiT), as in the authors' code. Without positions, which
    # is absent, the model sees a set of patches.
    positions: Literal["learned", "sincos2d", "absent"] | None = None
    # token: the class token. gap: mean over the normalised patch tokens, no class token, as in
    # Google's files. gap_timm: mean over the patch tokens, then the norm; a class token takes
    # part in attention but is left out of the mean. attention: a learned query attends to them.
    # ResNet and Mixer always take the mean.
    pooling: Literal["token", "gap", "gap_timm", "attention"] | None = None
    # Width of the tanh layer before the head (section 3.1: pre-training); None is no such layer.
    representation_size: int | None = None
    registers: int = 0
    # Initial bias of the head; -10 for sigmoid pre-training on many classes.
    head_bias: float = 0.0

    dropout: float = 0.0
    # Probability that the last block is skipped, falling linearly to 0 at the first.
    stochastic_depth: float = 0.0

    gelu: Literal["tanh", "exact"] | None = None
    # Of all norms, layer's and group's.
    norm_epsilon: float | None = None

    # Of activations; parameters are float32.
    dtype: Literal["float32", "bfloat16"] = "float32"
    # Of the blocks: composed by XLA, or fused in a kernel for GPUs or for TPUs.
    attention: Implementation = "xla"
    # What the backward pass recomputes: nothing, all of the blocks but matrix products, or whole
    # blocks and residual units; with offload their inputs wait in the host's memory.
    remat: Remat = "none"
    # True compiles one block and loops over the stacked parameters; False unrolls the loop.
    scan: bool = True

    # None takes that of the weights that training starts from, else the defaults.
    preprocessing: PreprocessingConfig | None = None

    def __post_init__(self) -> None:
        check(self)

    def following(self, weights: "ModelConfig | None" = None) -> "ModelConfig":
        """With nothing left open: what this config does not say is as in `weights`, or the default.

        Of preprocessing, `short_side` keeps its ratio to the image size.

        Args:
          weights: a model of the same family.
        """
        defaults = _defaults(self.family, self.unit_order)
        source = {k: getattr(weights, k) for k in defaults} if weights else defaults
        changes = {
            k: defaults[k] if source[k] is None else source[k]
            for k in defaults
            if getattr(self, k) is None
        }
        if self.preprocessing is None and weights and weights.preprocessing is not None:
            old, new = min(weights.input_size), min(self.input_size)
            changes["preprocessing"] = weights.preprocessing.at(old, new)
        return dataclasses.replace(self, **changes)

    @property
    def family(self) -> Family:
        """Of the named model."""
        return parse_name(self.name).family

    @property
    def size(self) -> Size:
        """The encoder's shape, of a ViT or hybrid: the named one, with this config's changes."""
        return self._changed(SIZES[parse_name(self.name).size])

    @property
    def mixer_size(self) -> MixerSize:
        """The shape of a Mixer."""
        return self._changed(MIXER_SIZES[parse_name(self.name).size])

    @property
    def resnet(self) -> ResNetSize | None:
        """The shape of a ResNet or of a hybrid's; None if there is none."""
        named = parse_name(self.name)
        if named.family not in ("resnet", "hybrid"):
            return None
        stages = named.stages if self.stages is None else self.stages
        if stages is None:
            raise UserError(
                f"{self.name}: hybrids are known with /16 and /32; set stages for another one"
            )
        return self._changed(ResNetSize(stages, named.width_factor))

    @property
    def shape(self) -> dict[str, Any]:
        """All numbers that tell models of one family apart, by name, but for the patch size."""
        numbers: dict[str, Any] = {}
        if self.family != "resnet":
            numbers |= (self.mixer_size if self.family == "mixer" else self.size)._asdict()
        if self.resnet is not None:
            numbers |= self.resnet._asdict() | {"unit_order": self.unit_order}
        return numbers

    def _changed(self, named: Any) -> Any:
        changed = {key: getattr(self, key) for key in named._fields}
        return named._replace(**{k: v for k, v in changed.items() if v is not None})

    @property
    def unit_order(self) -> UnitOrder:
        """Of a ResNet's units."""
        return parse_name(self.name).order

    @property
    def patch_size(self) -> int:
        """Pixels a side that become one token; of a ResNet, one position of its output."""
        if self.family == "resnet":
            assert self.resnet is not None
            return self.resnet.stride
        return parse_name(self.name).patch_size

    @property
    def embedding_size(self) -> int:
        """Side of the embedding's kernel: in pixels, in a hybrid in positions of the ResNet."""
        return self.patch_size // (self.resnet.stride if self.resnet else 1)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; of a ResNet, of its output.

        A remainder that is no whole patch is cut off at the bottom and right. A ResNet pads
        instead: its output is the image's size over its stride, rounded up.
        """
        stride = self.resnet.stride if self.resnet else 1
        rows, columns = (-(-side // stride) for side in self.input_size)
        if self.family == "resnet":
            return rows, columns
        return rows // self.embedding_size, columns // self.embedding_size

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands before the patch tokens."""
        is_encoder = self.family in ("vit", "hybrid")
        return is_encoder and self.pooling in (None, "token", "gap_timm")

    @property
    def sequence_length(self) -> int:
        """Tokens that the blocks see: patches, class token and registers.

        Of a ResNet, which has none, the positions of its output.
        """
        rows, columns = self.grid
        return rows * columns + self.has_class_token + self.registers


# What no parameter's shape shows for certain, and what makes the same parameters another function.
FOLLOWED = ("positions", "pooling", "gelu", "norm_epsilon")


def _defaults(family: Family, order: UnitOrder) -> dict[str, Any]:
    """What a model of this family is where neither a config nor weights say it."""
    defaults: dict[str, Any] = {
        "norm_epsilon": 1e-5 if order == "pre" else 1e-6,
        "preprocessing": PreprocessingConfig(),
    }
    if family != "resnet":
        defaults["gelu"] = "tanh"
    if family in ("vit", "hybrid"):
        defaults |= {"positions": "learned", "pooling": "token"}
    return defaults
