"""Small models of `transformers`, and files that it reads."""

from pathlib import Path
from typing import Any

from transformers import ViTConfig, ViTForImageClassification

from tests.peers.drawn import redrawn_module
from vit_jax.models.functional import model_params
from vit_jax.weights.files import write_weights

SMALL = {
    "hidden_size": 48,
    "num_attention_heads": 4,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "image_size": 64,
    "num_labels": 7,
}


def made(**arguments: Any) -> Any:
    return redrawn_module(ViTForImageClassification(ViTConfig(**SMALL | arguments)))


def write(directory: Path, model: Any, **options: Any) -> None:
    write_weights(
        directory / "model.safetensors",
        model_params(model),
        model.config,
        layout="huggingface",
        **options,
    )
