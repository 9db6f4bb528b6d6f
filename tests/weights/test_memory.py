import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tests.small_models import SMALL, random_params
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import write_weights

# 60 MB of parameters.
LARGE = ModelConfig("ViT-B/16", num_classes=10, width=320, mlp_dim=1280, num_heads=5).completed()

# What loading takes once, whatever the model's size, is taken with the small one.
MEASURE = """
import sys
import vit_jax

def memory(kind):
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))

small, large = sys.argv[1:]
vit_jax.load_model(weights=small)
before = memory("VmRSS")
model = vit_jax.load_model(weights=large)
print(memory("VmHWM") - before)
"""


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
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 0.9 * size < peak < 1.3 * size
