"""The Python lines of the pages run, with small weights in place of large ones."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.docs.pages import ROOT, blocks
from tests.small_models import SMALL, random_params
from vit_jax.weights.files import write_weights

MODEL = dataclasses.replace(SMALL, name="ViT-Ti/16", image_size=32, depth=None)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/python-api.md", "docs/use-weights.md", "docs/analyze.md"]
)
def test_python_lines_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photo = Image.new("RGB", (40, 30), (200, 90, 20))
    photo.save("photo.jpg")
    write_weights(tmp_path / "weights.npz", random_params(MODEL), MODEL)
    code = blocks((ROOT / page).read_text(), "python")[0]
    code = re.sub(r'"imagenet21k[\w+]*/ViT-B_16"', '"weights.npz"', code)
    code = code.replace("ViT-B/16", "ViT-Ti/16")
    names: dict[str, Any] = {"pil_image": photo}
    exec(compile(code, page, "exec"), names)
    if "logits" in names:
        logits = np.asarray(names["logits"])
        assert logits.ndim == 2 and np.isfinite(logits).all()
