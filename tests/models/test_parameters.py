"""The tables of parameters describe every parameter of every family, and nothing else."""

from typing import Any

import jax
import pytest

from vit_jax.models.config import ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params
from vit_jax.parameters import Parameter, find

MODELS = [
    ModelConfig("ViT-B/16", num_classes=1000, representation_size=512),
    ModelConfig("ViT-S/16", num_classes=0, pooling="gap", positions="sincos2d", registers=4),
    ModelConfig("ViT-L/16", num_classes=10, pooling="attention", positions="none"),
    ModelConfig("ViT-Ti/16", num_classes=10, pooling="gap_timm", image_size=(64, 96)),
    ModelConfig("R50+ViT-B/16", num_classes=1000),
    ModelConfig("R+ViT-Ti/16", num_classes=10),
    ModelConfig("R26x1", num_classes=1000),
    ModelConfig("BiT-R50x1", num_classes=1000),
    ModelConfig("Mixer-B/16", num_classes=1000),
    ModelConfig("Mixer-S/32", num_classes=0),
    ModelConfig("AxialViT-B/32", num_classes=10, representation_size=512),
    ModelConfig("AxialResNet-50", num_classes=10),
]


def _shapes(config: Any) -> Any:
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(config))
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf.shape for p, leaf in leaves}


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.name)
def test_the_table_lists_what_the_model_has(config: Any) -> None:
    table, shapes = parameter_table(config), _shapes(config)
    assert set(table) == set(shapes)
    for path, parameter in table.items():
        assert len(parameter.axes) == len(shapes[path]), path
        # The names that the layers' modules give their arrays.
        name = path.rpartition("/")[2]
        expected = name if name in ("kernel", "bias", "scale") else "embedding"
        assert parameter.role == expected, path


def test_axes_have_the_lengths_of_the_model() -> None:
    """ViT-B/16 by Table 1 of the paper, with 1000 classes at 224 pixels."""
    lengths = {
        **{"block": 12, "width": 768, "heads": 12, "head_size": 64, "hidden": 3072},
        **{"classes": 1000, "positions": 14 * 14 + 1, "features": 512},
        **{"height": 16, "columns": 16, "channels": 3, "batch": 1, "token": 1},
    }
    shapes = _shapes(MODELS[0])
    for path, parameter in parameter_table(MODELS[0]).items():
        assert shapes[path] == tuple(lengths[axis] for axis in parameter.axes), path


def test_an_array_belongs_to_the_longest_end_of_its_path() -> None:
    own = Parameter(("features", "classes"), "kernel", "head")
    objective = Parameter(("width", "pixels"), "kernel", "head")
    table = {"head/kernel": own, "objective/head/kernel": objective}
    assert find(table, "params/head/kernel") is own
    assert find(table, "opt_state/1/mu/head/kernel") is own
    assert find(table, "opt_state/1/mu/objective/head/kernel") is objective
    assert find(table, "overhead/kernel") is None


def test_a_misspelt_role_or_part_is_an_error() -> None:
    with pytest.raises(ValueError, match="'kernels' is not one of kernel, bias"):
        Parameter(("width",), "kernels", "head")
    with pytest.raises(ValueError, match="'top' is not one of stem"):
        Parameter(("width",), "bias", "top")
