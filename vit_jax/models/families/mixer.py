"""MLP-Mixer (arXiv 2105.01601)."""

from typing import Any

from vit_jax.models.checks import check_blocks, check_common, check_image_size
from vit_jax.models.config import FAMILIES, Family, ModelConfig
from vit_jax.models.families.vit import embedding_macs
from vit_jax.models.mixer import Mixer, parameters
from vit_jax.preprocessing import PreprocessingConfig


def _defaults(config: ModelConfig) -> dict[str, Any]:
    """As in the authors' code."""
    del config
    return {"gelu": "tanh", "norm_epsilon": 1e-6, "preprocessing": PreprocessingConfig()}


def _check(config: ModelConfig) -> None:
    check_common(config)
    check_blocks(config)
    check_image_size(config)


def _macs(config: ModelConfig) -> dict[str, int]:
    depth, width, mlp_dim, token_mlp_dim = config.mixer_size
    products = 2 * config.sequence_length * width * (token_mlp_dim + mlp_dim)
    return {"embedding": embedding_macs(config, 3), "blocks": depth * products}


def _features(config: ModelConfig) -> int:
    return config.mixer_size.width


def _kept(config: ModelConfig) -> dict[str, int]:
    tokens = config.sequence_length
    _, width, mlp_dim, token_mlp_dim = config.mixer_size
    if config.remat == "block":
        return {"blocks": tokens * width}
    # Every other operation of a block works element by element or is a sum over channels.
    return {"blocks": tokens * (2 * width + mlp_dim) + width * token_mlp_dim}


def _description(config: ModelConfig) -> list[tuple[str, str]]:
    depth, width, mlp_dim, token_mlp_dim = config.mixer_size
    mlps = f"MLP of channels {mlp_dim}, of tokens {token_mlp_dim}"
    return [("blocks", f"{depth} of width {width}, {mlps}")]


FAMILIES["mixer"] = Family(
    words="a Mixer",
    keys=frozenset(
        {"depth", "width", "mlp_dim", "token_mlp_dim", "stochastic_depth", "gelu", "scan"}
    ),
    defaults=_defaults,
    check=_check,
    make=Mixer,
    parameters=parameters,
    macs=_macs,
    features=_features,
    kept=_kept,
    description=_description,
)
