"""What a model card says, done: each library loads the folder as written, and predicts the same."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from tests.peers.drawn import photograph
from tests.small_models import random_params
from vit_jax.__main__ import main
from vit_jax.inference.prediction import predict
from vit_jax.models.config import ModelConfig
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.weights.files import write_weights
from vit_jax.weights.load import load_model

NAMES = ("ant", "bee", "cat", "dog", "<b>elk</b>")


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("layout", ["timm", "huggingface"])
def test_the_folder_is_complete(
    layout: str, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessing = PreprocessingConfig(
        resize="short_side", short_side=36, interpolation="bicubic", antialias=True
    )
    model = ModelConfig("ViT-mu/8", image_size=32, num_classes=5, preprocessing=preprocessing)
    model = model.completed()
    params = random_params(model)
    write_weights(tmp_path / "w.npz", params, model, class_names=NAMES, extra={"loss": loss})
    folder = tmp_path / "hub"
    target = f"--target={folder}/model.safetensors"
    command = ["convert", f"--source={tmp_path / 'w.npz'}", target, f"--layout={layout}"]
    assert not main([*command, "--license=apache-2.0"])
    photograph(150, 100).save(tmp_path / "photo.jpg", quality=95)

    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0"
    code = re.search(r"```python\n(.*?)```", card.content, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code[1].replace("FOLDER", str(folder)), names)
    outputs = names["outputs"]
    (expected,) = predict(load_model(weights=tmp_path / "w.npz"), ["photo.jpg"], top_k=5)
    if layout == "huggingface":
        assert [each["label"] for each in outputs] == [NAMES[i] for i in expected.classes]
        found = [each["score"] for each in outputs]
    else:
        shares = outputs.sigmoid() if loss == "sigmoid" else torch.softmax(outputs, -1)
        found = shares.detach().numpy()[0, list(expected.classes)]
        assert names["model"].pretrained_cfg["label_names"] == list(NAMES)
    np.testing.assert_allclose(found, expected.probabilities, rtol=0, atol=1e-4)
