"""Files of a small ViT with the names and shapes of Hugging Face's `transformers`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.small_models import SMALL
from vit_jax.models.config import ModelConfig

# Names and shapes of ViTModel with hidden_size=32, num_hidden_layers=2, intermediate_size=128,
# image_size=16, patch_size=8.
ENCODER = {
    "embeddings.cls_token": (1, 1, 32),
    "embeddings.patch_embeddings.projection.weight": (32, 3, 8, 8),
    "embeddings.patch_embeddings.projection.bias": (32,),
    "embeddings.position_embeddings": (1, 5, 32),
    **{
        f"encoder.layer.{i}.{name}.{leaf}": (*outputs, *inputs) if leaf == "weight" else outputs
        for i in range(2)
        for name, outputs, inputs in (
            ("attention.attention.query", (32,), (32,)),
            ("attention.attention.key", (32,), (32,)),
            ("attention.attention.value", (32,), (32,)),
            ("attention.output.dense", (32,), (32,)),
            ("intermediate.dense", (128,), (32,)),
            ("output.dense", (32,), (128,)),
            ("layernorm_before", (32,), ()),
            ("layernorm_after", (32,), ()),
        )
        for leaf in ("weight", "bias")
    },
    "layernorm.weight": (32,),
    "layernorm.bias": (32,),
}


POOLER = {"pooler.dense.weight": (32, 32), "pooler.dense.bias": (32,)}


# Those of ViTForImageClassification with 5 labels.
CLASSIFIER = {
    **{f"vit.{name}": shape for name, shape in ENCODER.items()},
    "classifier.weight": (5, 32),
    "classifier.bias": (5,),
}


NAMES = ("a", "b", "c", "d", "e")


def drawn_file(shapes: Mapping[str, Any] = CLASSIFIER) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def small_model(**changes: Any) -> ModelConfig:
    return dataclasses.replace(SMALL, **changes)
