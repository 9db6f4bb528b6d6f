"""The plain Vision Transformer (section 3.1)."""

from typing import Any

from vit_jax.models.checks import check_common, check_encoder, check_image_size
from vit_jax.models.config import FAMILIES, Family, ModelConfig
from vit_jax.models.positions import scheme
from vit_jax.models.vit import ViT, parameters
from vit_jax.preprocessing import PreprocessingConfig

# The fields that ViTs and hybrids have.
ENCODER_KEYS = frozenset(
    {
        *("depth", "width", "mlp_dim", "num_heads", "positions", "pooling", "representation_size"),
        *("registers", "dropout", "stochastic_depth", "gelu", "attention", "scan"),
    }
)


def encoder_defaults(config: ModelConfig) -> dict[str, Any]:
    """As in the authors' code."""
    del config
    return {
        "positions": "learned",
        "pooling": "token",
        "gelu": "tanh",
        "norm_epsilon": 1e-6,
        "preprocessing": PreprocessingConfig(),
    }


def _check(config: ModelConfig) -> None:
    check_common(config)
    check_encoder(config)
    check_image_size(config)


def embedding_macs(config: ModelConfig, channels: int) -> int:
    """Multiply-adds of the patch embedding of a ViT, an axial one, a hybrid or a Mixer."""
    assert config.blocks is not None
    rows, columns = config.grid
    return rows * columns * config.embedding_size**2 * channels * config.blocks.width


def encoder_macs(config: ModelConfig, channels: int = 3) -> dict[str, int]:
    """Multiply-adds of a ViT on patches of this many channels."""
    depth, width, mlp_dim, _ = config.size
    tokens = config.sequence_length
    macs = {"embedding": embedding_macs(config, channels)}
    products = _attention(tokens, tokens, width) + 2 * tokens * width * mlp_dim
    macs["blocks"] = depth * (products + scheme(config).macs(config))
    if config.pooling == "attention":
        macs["pooling"] = _attention(1, tokens, width) + 2 * width * mlp_dim
    if config.representation_size is not None:
        macs["pre_logits"] = width * config.representation_size
    return macs


def encoder_features(config: ModelConfig) -> int:
    """Channels that the head sees."""
    return config.representation_size or config.size.width


def encoder_kept(config: ModelConfig) -> dict[str, int]:
    """Numbers that a block keeps for the backward pass."""
    tokens = config.sequence_length
    _, width, mlp_dim, heads = config.size
    if config.remat == "block":
        return {"blocks": tokens * width}
    if config.remat == "dots":
        # Input; query, key, value; attention's output. The MLP's output is not needed.
        return {"blocks": tokens * (5 * width + mlp_dim)}
    # The mixture of values too; the maximum and the sum of the scores of each head and token.
    # Scores and what norms and GELU give are computed anew.
    return {"blocks": tokens * (6 * width + mlp_dim + 2 * heads)}


def encoder_description(config: ModelConfig) -> list[tuple[str, str]]:
    """The line of `describe` about the blocks."""
    depth, width, mlp_dim, heads = config.size
    return [("encoder", f"{depth} blocks, width {width}, MLP {mlp_dim}, {heads} heads")]


def _attention(queries: int, keys: int, width: int) -> int:
    """Query and output projections, key and value projections, scores and mixing."""
    return (2 * queries + 2 * keys) * width**2 + 2 * queries * keys * width


FAMILIES["vit"] = Family(
    words="a ViT",
    keys=ENCODER_KEYS,
    defaults=encoder_defaults,
    check=_check,
    make=ViT,
    parameters=parameters,
    macs=encoder_macs,
    features=encoder_features,
    kept=encoder_kept,
    description=encoder_description,
)
