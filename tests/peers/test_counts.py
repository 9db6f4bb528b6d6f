"""Parameters of the released ResNets, hybrids and Mixers, counted by timm's own models."""

import math

import jax
import pytest
import timm
import torch

from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params

# timm's models with weight-standardised convolutions and group norms hold BiT's released files.
MODELS = {
    "BiT-R50x1": "resnetv2_50x1_bit",
    "BiT-R50x3": "resnetv2_50x3_bit",
    "BiT-R101x1": "resnetv2_101x1_bit",
    "BiT-R101x3": "resnetv2_101x3_bit",
    "BiT-R152x2": "resnetv2_152x2_bit",
    "BiT-R152x4": "resnetv2_152x4_bit",
    "Mixer-S/32": "mixer_s32_224",
    "Mixer-S/16": "mixer_s16_224",
    "Mixer-B/32": "mixer_b32_224",
    "Mixer-B/16": "mixer_b16_224",
    "Mixer-L/16": "mixer_l16_224",
    "R26+ViT-S/32": "vit_small_r26_s32_224",
    "R50+ViT-L/32": "vit_large_r50_s32_224",
    "R+ViT-Ti/16": "vit_tiny_r_s16_p8_224",
}


@pytest.mark.parametrize("classes", [1000, 21843])
@pytest.mark.parametrize("name", MODELS)
def test_the_number_of_parameters_is_timm_s(name: str, classes: int) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(MODELS[name], num_classes=classes)
    ours = abstract_params(ModelConfig(name, num_classes=classes))
    expected = sum(p.numel() for p in theirs.parameters())
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(ours)) == expected
