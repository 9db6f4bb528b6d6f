import sys
from pathlib import Path

import jax
import pytest

from tests.real_processes import run_program
from tests.small_models import SMALL, random_params
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import write_weights

# 60 MB of parameters.
LARGE = ModelConfig("ViT-B/16", num_classes=10, width=320, mlp_dim=1280, num_heads=5).completed()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("layout", ["google", "timm"])
def test_loading_takes_little_more_memory_than_the_parameters(tmp_path: Path, layout: str) -> None:
    ending = "npz" if layout == "google" else "safetensors"
    paths = [tmp_path / f"{size}.{ending}" for size in ("small", "large")]
    for path, model in zip(paths, (SMALL, LARGE), strict=True):
        params = random_params(model)
        write_weights(path, params, model, layout=layout)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert 55e6 < size < 65e6
    peak = int(run_program("tests.programs.measure_loading", *map(str, paths)))
    assert 0.9 * size < peak < 1.3 * size
