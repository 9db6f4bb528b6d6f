"""The `model` section of a config: everything that defines a model and the input it expects."""

import dataclasses
import functools
import logging
from dataclasses import dataclass
from typing import Literal

from vit_jax.errors import UserError
from vit_jax.models.sizes import SIZES, Size, parse_name
from vit_jax.preprocessing import PreprocessingConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelConfig:
    """A plain Vision Transformer by name, with what differs from the name.

    `depth`, `width`, `mlp_dim` and `num_heads` default to the named size (Table 1).
    """

    name: str = "ViT-B/16"
    # Pixels: a side, or (height, width).
    image_size: int | tuple[int, int] = 224
    # None takes the number of classes of the training data; 0 is no head: the model returns its
    # features.
    num_classes: int | None = None
    depth: int | None = None
    width: int | None = None
    mlp_dim: int | None = None
    num_heads: int | None = None

    # Where None stands in these four, it is that of the weights that training starts from, else
    # learned, token, tanh and 1e-6, as in the paper's code.
    positions: Literal["learned", "sincos2d", "none"] | None = None
    # token: the class token. gap: mean over the normalised patch tokens, no class token, as in
    # Google's files. gap_timm: mean over the patch tokens, then the norm; a class token takes
    # part in attention but is left out of the mean. attention: a learned query attends to them.
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
    norm_epsilon: float | None = None

    # Of activations; parameters are float32.
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["xla", "cudnn"] = "xla"
    # What the backward pass recomputes: nothing, all but matrix products, or whole blocks.
    remat: Literal["none", "dots", "block"] = "none"
    # True compiles one block and loops over the stacked parameters; False unrolls the loop.
    scan: bool = True

    # None takes that of the weights that training starts from, else the defaults.
    preprocessing: PreprocessingConfig | None = None

    def __post_init__(self) -> None:
        self._check_image_size()
        self._check_encoder()
        if self.num_classes is not None and self.num_classes < 0:
            raise UserError(f"num_classes must not be negative, not {self.num_classes}")
        for name in ("dropout", "stochastic_depth"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if self.representation_size is not None and self.representation_size < 1:
            raise UserError(f"representation_size must be positive, not {self.representation_size}")
        if self.attention == "cudnn" and self.dtype == "float32":
            raise UserError("attention='cudnn' needs dtype='bfloat16'")

    def _check_image_size(self) -> None:
        patch = self.patch_size
        height, width = self.input_size
        if min(height, width) < patch:
            raise UserError(
                f"image_size {height}x{width} is below one patch of {self.name} "
                f"({patch}x{patch} pixels); use a larger image_size or a smaller patch"
            )
        short_side = self.preprocessing.short_side if self.preprocessing else None
        if short_side is not None and short_side < min(height, width):
            raise UserError(
                f"preprocessing.short_side {short_side} is below the image_size {height}x{width}, "
                "so that no crop fits; raise it or drop it"
            )
        if height % patch or width % patch:
            _notice_floored_grid(height, width, patch)

    def _check_encoder(self) -> None:
        size = self.size
        for name, value in size._asdict().items():
            if value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        if size.width % size.num_heads:
            raise UserError(f"width {size.width} is not a multiple of num_heads {size.num_heads}")
        if self.positions == "sincos2d" and size.width % 4:
            raise UserError(
                f"positions='sincos2d' needs a multiple of 4 as width, not {size.width}"
            )
        if self.registers < 0:
            raise UserError(f"registers must not be negative, not {self.registers}")

    def following(self, weights: "ModelConfig | None" = None) -> "ModelConfig":
        """With nothing left open: what this config does not say is as in `weights`, or the default.

        Of preprocessing, `short_side` keeps its ratio to the image size.
        """
        source = weights or _DEFAULT
        changes = {k: getattr(source, k) for k in FOLLOWED if getattr(self, k) is None}
        if self.preprocessing is None and source.preprocessing is not None:
            old, new = min(source.input_size), min(self.input_size)
            changes["preprocessing"] = source.preprocessing.at(old, new)
        return dataclasses.replace(self, **changes)

    @property
    def size(self) -> Size:
        """The encoder's shape: the named one, with this config's changes."""
        named = SIZES[parse_name(self.name)[0]]
        changed = {key: getattr(self, key) for key in Size._fields}
        return named._replace(**{k: v for k, v in changed.items() if v is not None})

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return parse_name(self.name)[1]

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; a remainder of pixels is cut off at the bottom and right."""
        height, width = self.input_size
        return height // self.patch_size, width // self.patch_size

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands before the patch tokens."""
        return self.pooling in (None, "token", "gap_timm")

    @property
    def sequence_length(self) -> int:
        """Tokens that the encoder sees: patches, class token and registers."""
        rows, columns = self.grid
        return rows * columns + self.has_class_token + self.registers


# What no parameter's shape shows for certain, and what makes the same parameters another function.
FOLLOWED = ("positions", "pooling", "gelu", "norm_epsilon")

_DEFAULT = ModelConfig(
    positions="learned",
    pooling="token",
    gelu="tanh",
    norm_epsilon=1e-6,
    preprocessing=PreprocessingConfig(),
)


@functools.cache
def _notice_floored_grid(height: int, width: int, patch: int) -> None:
    _log.warning(
        "an image of %dx%d pixels is not a whole number of %dx%d patches: the model sees its "
        "upper left %dx%d",
        *(height, width, patch, patch),
        *(height // patch * patch, width // patch * patch),
    )
