"""Memory that the backward pass needs, counted in closed form."""

import numpy as np

from vit_jax.models.config import ModelConfig


def block_bytes(config: ModelConfig) -> dict[str, int]:
    """Bytes that one block keeps of one image for the backward pass, by part of the model.

    Of `blocks`, and of the residual unit in each stage that keeps most: the inputs of norms,
    matrix products, convolutions and activation functions, and the attention's weights. That is
    Korthikanti et al., arXiv 2205.05198, section 4.1, without the masks of dropout; what a
    compiler keeps depends on what it fuses. With `remat="block"` it is the block's input, which
    "offload" keeps in the host's memory, and with "dots" the input and those results of matrix
    products with parameters that are needed. Fused attention keeps a number a query, not a row.
    """
    size = 2 if config.dtype == "bfloat16" else 4
    kept = _units(config)
    if config.family == "mixer":
        kept["blocks"] = _mixer_block(config)
    elif config.family != "resnet":
        kept["blocks"] = _encoder_block(config)
    if config.remat == "offload":
        return dict.fromkeys(kept, 0)
    return {part: size * numbers for part, numbers in kept.items()}


def _encoder_block(config: ModelConfig) -> int:
    tokens = config.sequence_length
    _, width, mlp_dim, heads = config.size
    if config.remat == "block":
        return tokens * width
    if config.remat == "dots":
        # Input; query, key, value; attention's output. The MLP's is not needed.
        return tokens * (5 * width + mlp_dim)
    # Inputs and outputs of two norms; query, key, value and their mixture; before and after GELU.
    weights = heads * tokens * (tokens if config.attention == "xla" else 1)
    return tokens * (8 * width + 2 * mlp_dim) + weights


def _mixer_block(config: ModelConfig) -> int:
    tokens = config.sequence_length
    _, width, mlp_dim, token_mlp_dim = config.mixer_size
    if config.remat == "block":
        return tokens * width
    if config.remat == "dots":
        return tokens * (2 * width + mlp_dim) + width * token_mlp_dim
    # Inputs and outputs of two norms; before and after each GELU.
    return tokens * (4 * width + 2 * mlp_dim) + 2 * width * token_mlp_dim


def _units(config: ModelConfig) -> dict[str, int]:
    if config.resnet is None:
        return {}
    kept, inputs = {}, config.resnet.root_width
    for stage in range(len(config.resnet.stages)):
        width = config.resnet.root_width * 2**stage
        before, after = (
            int(np.prod([-(-side // (4 * 2**halvings)) for side in config.input_size]))
            for halvings in (max(stage - 1, 0), stage)
        )
        first = _unit(config, inputs, width, before, after, projects=True)
        inputs = 4 * width
        later = _unit(config, inputs, width, after, after, projects=False)
        has_later = config.resnet.stages[stage] > 1
        kept[f"backbone/stage{stage + 1}"] = max(first, later) if has_later else first
    return kept


def _unit(
    config: ModelConfig, inputs: int, width: int, before: int, after: int, *, projects: bool
) -> int:
    """With so many positions before and after the stride."""
    if config.remat == "block":
        return before * inputs
    if config.unit_order == "pre":
        # Before and after each norm, and after its ReLU.
        return before * 3 * (inputs + width) + after * 3 * width
    # The input; likewise of two norms; inputs of the last norm, of the projection's, of the last
    # ReLU.
    return before * (inputs + 3 * width) + after * (3 * width + (2 + projects) * 4 * width)
