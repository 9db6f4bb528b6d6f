"""The `model` section of a config: everything that defines a model and the input it expects."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flax import nnx

from vit_jax.errors import UserError
from vit_jax.models.dot_product import Implementation
from vit_jax.models.rematerialisation import Remat
from vit_jax.models.sizes import (
    ActivationOrder,
    FamilyName,
    MixerSize,
    ResNetSize,
    Size,
    parse_name,
)
from vit_jax.parameters import Table
from vit_jax.preprocessing import PreprocessingConfig

# The word of a field that takes the value of the weights that training starts from.
INHERIT = "inherit"
# The fields that a model inherits: no parameter's shape shows them for certain, or they make
# another function of the same parameters.
INHERITED = ("positions", "pooling", "gelu", "norm_epsilon", "root_pool")


@dataclass(frozen=True)
class ModelConfig:
    """A model by name, and what differs from the name.

    Not every family of models has every key. Setting a key that the family lacks is an error.
    """

    name: str = "ViT-B/16"
    """Name of a model, such as ViT-B/16, R50+ViT-B/16, BiT-R50x1, Mixer-B/16 or AxialViT-B/16;
    `python -m vit_jax models` lists them."""
    image_size: int | tuple[int, int] = 224
    """Pixels: the side of a square, or HEIGHTxWIDTH such as 384x512."""
    num_classes: int | None = None
    """Classes of the head. None: as many as the training data have; 0: no head, so that the model
    returns its features."""

    depth: int | None = None
    """Number of blocks (ViT, hybrid, Mixer), or of pairs of them (axial ViT). None: that of the
    named size (Table 1)."""
    width: int | None = None
    """Channels of a token (ViT, axial ViT, hybrid, Mixer). None: that of the named size."""
    mlp_dim: int | None = None
    """Hidden units of the MLP that mixes channels (ViT, axial ViT, hybrid, Mixer). None: that of
    the named size."""
    num_heads: int | None = None
    """Attention heads (ViT, axial ViT, hybrid). None: that of the named size."""
    token_mlp_dim: int | None = None
    """Hidden units of the MLP that mixes tokens (Mixer). None: that of the named size."""
    stages: tuple[int, ...] | None = None
    """Residual units in each stage (ResNet, hybrid). None: those of the name."""
    width_factor: float | None = None
    """Factor of all widths of the ResNet, 64 at the root (ResNet, hybrid). None: the name's."""
    root_pool: Literal["inherit", "zeros", "inf"] = "inherit"
    """What surrounds the input of the root's maximum (BiT). zeros: 0, as in the authors' code and
    in timm. inf: minus infinity, so that the border never wins, as in big_vision. inherit: that of
    the weights in `init_from`, otherwise zeros."""

    positions: str | Literal["none"] = "inherit"
    """Position embeddings (ViT, axial ViT, hybrid). learned: one for each token, added at the stem.
    learned2d: two tables of half the width, for rows and columns. learned_layers, learned2d_layers:
    a table of its own before each block. learned_shared, learned2d_shared: one table before every
    block. relative: offsets of patches in the scores of attention. sincos2d: fixed. none: the model
    ignores the order of the patches. Or a registered scheme. inherit: those of the weights in
    `init_from`, otherwise learned."""
    pooling: Literal["inherit", "token", "gap", "gap_timm", "attention"] = "inherit"
    """How tokens become features (ViT, hybrid). token: the class token. gap: the mean over the
    normalised patch tokens, without a class token, as in Google's files. gap_timm: the norm of the
    mean over the patch tokens; a class token takes part in attention but not in the mean.
    attention: a learned query attends to the tokens. inherit: that of the weights in `init_from`,
    otherwise token."""
    representation_size: int | None = None
    """Width of a tanh layer before the head (section 3.1, pre-training). None: no such layer."""
    registers: int = 0
    """Extra learned tokens that take part in attention and are dropped before pooling."""
    head_bias: float = 0.0
    """Initial bias of the head; -10 for sigmoid pre-training on many classes."""

    dropout: float = 0.0
    """Share of values that dropout zeroes after positions, attention and MLP layers."""
    stochastic_depth: float = 0.0
    """Probability of skipping the last block. It falls linearly to 0 at the first block."""

    gelu: Literal["inherit", "tanh", "exact"] = "inherit"
    """Form of the GELU: its tanh approximation, or exact. inherit: that of the weights in
    `init_from`, otherwise tanh."""
    norm_epsilon: float | None = None
    """Small number in all norms. None: that of the weights in `init_from`, otherwise 1e-6 (BiT:
    1e-5)."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations. Parameters are float32."""
    attention: Implementation = "xla"
    """Implementation of attention: composed by XLA, or a fused kernel for GPUs (cudnn) or TPUs
    (pallas)."""
    remat: Remat = "none"
    """What the backward pass recomputes. none: only what is cheaper to recompute than to keep, such
    as outputs of norms and GELUs. dots: everything in a block except products with parameters.
    block: whole blocks and residual units. offload: like block, with the blocks' inputs kept in the
    host's memory."""
    scan: bool = True
    """True compiles one block and loops over the stacked parameters. False unrolls the loop."""

    preprocessing: PreprocessingConfig | None = None
    """How images are prepared. None: as for the weights in `init_from`, otherwise the defaults."""

    def __post_init__(self) -> None:
        family_of(self).check(self)

    def completed(self, from_weights: "ModelConfig | None" = None) -> "ModelConfig":
        """Fills in what this config leaves open: from the weights, otherwise the family's defaults.

        The preprocessing's `short_side` keeps its ratio to the image size.

        Args:
          from_weights: the model of the weights, of the same family.
        """
        defaults = family_of(self).defaults(self)
        changes = {}
        for key, default in defaults.items():
            if getattr(self, key) in (None, INHERIT):
                inherited = getattr(from_weights, key, None)
                changes[key] = default if inherited in (None, INHERIT) else inherited
        if self.preprocessing is None and from_weights and from_weights.preprocessing is not None:
            old, new = min(from_weights.input_size), min(self.input_size)
            changes["preprocessing"] = from_weights.preprocessing.at(old, new)
        return dataclasses.replace(self, **changes)

    @property
    def family(self) -> FamilyName:
        """The family of the named model."""
        return parse_name(self.name).family

    @property
    def blocks(self) -> Size | MixerSize | None:
        """The shape of the blocks: the named one, with this config's changes. A ResNet has none."""
        named = parse_name(self.name).blocks
        return None if named is None else self._changed(named)

    @property
    def size(self) -> Size:
        """The encoder's shape, of a ViT, an axial one or a hybrid."""
        assert isinstance(self.blocks, Size)
        return self.blocks

    @property
    def mixer_size(self) -> MixerSize:
        """The shape of a Mixer."""
        assert isinstance(self.blocks, MixerSize)
        return self.blocks

    @property
    def resnet(self) -> ResNetSize | None:
        """The shape of a ResNet or of a hybrid's ResNet; None if there is none."""
        named = parse_name(self.name)
        if not named.has_backbone:
            return None
        stages = named.stages if self.stages is None else self.stages
        if stages is None:
            raise UserError(
                f"{self.name}: hybrids are known with /16 and /32; set stages for another one"
            )
        return self._changed(ResNetSize(stages, named.width_factor))

    @property
    def shape(self) -> dict[str, Any]:
        """All numbers, except the patch size, that tell models of one family apart, by name."""
        numbers = {} if self.blocks is None else self.blocks._asdict()
        if self.resnet is not None:
            numbers |= self.resnet._asdict() | {"activation_order": self.activation_order}
        return numbers

    def _changed(self, named: Any) -> Any:
        changed = {key: getattr(self, key) for key in named._fields}
        return named._replace(**{k: v for k, v in changed.items() if v is not None})

    @property
    def activation_order(self) -> ActivationOrder:
        """Whether a ResNet's units activate before ("pre") or after ("post") they convolve."""
        return parse_name(self.name).order

    @property
    def patch_size(self) -> int:
        """Pixels a side that become one token, or in a ResNet one position of its output."""
        named = parse_name(self.name).patch_size
        return self.resnet.stride if self.resnet and not named else named

    @property
    def embedding_size(self) -> int:
        """Side of the embedding's kernel, in pixels or, in a hybrid, in positions of the ResNet."""
        return self.patch_size // (self.resnet.stride if self.resnet else 1)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches, or in a ResNet of its output.

        A remainder that is not a whole patch is cut off at the bottom and right. A ResNet pads
        instead: its output is the image's size over its stride, rounded up.
        """
        stride = self.resnet.stride if self.resnet else 1
        rows, columns = (-(-side // stride) for side in self.input_size)
        return rows // self.embedding_size, columns // self.embedding_size

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands before the patch tokens."""
        has_pooling = "pooling" in family_of(self).keys
        return has_pooling and self.pooling in (INHERIT, "token", "gap_timm")

    @property
    def sequence_length(self) -> int:
        """Tokens that the blocks see: patches, class token and registers.

        For a ResNet, the positions of its output.
        """
        rows, columns = self.grid
        return rows * columns + self.has_class_token + self.registers


@dataclass(frozen=True)
class Family:
    """What the models of one family have in common; `models/families/` holds one file for each.

    Attributes:
      words: the family in messages, such as "a ViT".
      keys: the fields of `ModelConfig` that this family has and some other family lacks.
      defaults: (config) -> what `inherit` and None stand for if no weights are given.
      check: (config) -> None; raises `UserError` for values that fit no model of this family.
      make: (config, rngs=...) -> a `Model` with fresh parameters.
      parameters: (completed config) -> the table of its parameters.
      macs: (config) -> multiply-adds of one image by part of the model, without the head.
      features: (config) -> channels that the head sees.
      kept: (config) -> numbers that one block, or the residual unit of a stage that keeps most,
        keeps of one image for the backward pass; by part of the model.
      description: (config) -> lines of `describe`: a label and what the blocks are.
    """

    words: str
    keys: frozenset[str]
    defaults: Callable[[ModelConfig], Mapping[str, Any]]
    check: Callable[[ModelConfig], None]
    make: Callable[..., nnx.Module]
    parameters: Callable[[ModelConfig], Table]
    macs: Callable[[ModelConfig], dict[str, int]]
    features: Callable[[ModelConfig], int]
    kept: Callable[[ModelConfig], dict[str, int]]
    description: Callable[[ModelConfig], list[tuple[str, str]]]


# Filled by `models/families/`.
FAMILIES: dict[FamilyName, Family] = {}


def family_of(config: ModelConfig) -> Family:
    """The family of a model."""
    return FAMILIES[config.family]
