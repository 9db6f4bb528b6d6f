"""The fields of `ModelConfig` as keyword arguments, so that type checkers know them."""

from typing import Literal, TypedDict

from vit_jax.models.dot_product import Implementation
from vit_jax.models.rematerialisation import Remat
from vit_jax.preprocessing import PreprocessingConfig


class ModelOptions(TypedDict, total=False):
    """What `load_model` takes besides the arguments that it names; see `ModelConfig`."""

    depth: int | None
    width: int | None
    mlp_dim: int | None
    num_heads: int | None
    token_mlp_dim: int | None
    stages: tuple[int, ...] | None
    width_factor: float | None
    root_pool: Literal["inherit", "zeros", "inf"]
    positions: str | Literal["none"]
    pooling: Literal["inherit", "token", "gap", "gap_timm", "attention"]
    representation_size: int | None
    registers: int
    head_bias: float
    dropout: float
    stochastic_depth: float
    gelu: Literal["inherit", "tanh", "exact"]
    norm_epsilon: float | None
    dtype: Literal["float32", "bfloat16"]
    attention: Implementation
    remat: Remat
    scan: bool
    preprocessing: PreprocessingConfig | None


class NewModelOptions(ModelOptions, total=False):
    """What `create_model` takes besides name and seed."""

    image_size: int | tuple[int, int]
    num_classes: int | None
