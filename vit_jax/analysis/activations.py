"""Memory that the backward pass needs, counted in closed form."""

from vit_jax.models.config import ModelConfig, family_of


def block_bytes(config: ModelConfig) -> dict[str, int]:
    """Bytes that one block keeps of one image for the backward pass, by part of the model.

    The parts are `blocks`, and for each stage the residual unit that keeps most. Kept are the
    inputs of norms, matrix products, convolutions and activation functions, and the attention's
    weights (Korthikanti et al., arXiv 2205.05198, section 4.1, without the masks of dropout). What
    a compiler keeps depends on what it fuses. With `remat="block"` only the block's input is kept;
    "offload" keeps it in the host's memory; "dots" keeps the input and the needed results of
    matrix products with parameters. Fused attention keeps one number a query instead of a row.
    """
    size = 2 if config.dtype == "bfloat16" else 4
    kept = family_of(config).kept(config)
    if config.remat == "offload":
        return dict.fromkeys(kept, 0)
    return {part: size * numbers for part, numbers in kept.items()}
