"""A Hub model whose head and names are permuted together is the same model."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.small_models import SMALL, random_params
from vit_jax.__main__ import main
from vit_jax.weights.files import write_weights

NAMES = ("ant", "bee", "cat", "dog", "fox")


def _hub(folder: Path, order: list[int]) -> Path:
    params = random_params(SMALL)
    head = {leaf: array[..., order] for leaf, array in params["head"].items()}
    names = tuple(NAMES[i] for i in order)
    path = folder / "model.safetensors"
    write_weights(path, params | {"head": head}, SMALL, layout="huggingface", class_names=names)
    (folder / "model.json").unlink()
    return folder


def test_evaluate_agrees_with_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"photos/{name}/{i}.png")
    photos = str(tmp_path / "photos")
    found = []
    for kind, order in (("plain", [0, 1, 2, 3, 4]), ("permuted", [3, 0, 4, 2, 1])):
        hub = str(_hub(tmp_path / kind, order))
        output = tmp_path / f"{kind}.jsonl"
        predict = ["predict", f"--weights={hub}", "--images", photos, f"--output={output}"]
        assert main(predict) == 0
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        right = [
            line["predictions"][0]["name"] == Path(line["image"]).parent.name for line in lines
        ]
        capsys.readouterr()
        scores = tmp_path / f"{kind}.json"
        command = ["evaluate", f"--weights={hub}", f"--dataset={photos}", f"--output={scores}"]
        assert main([*command, "--split=all"]) == 0
        assert f"{np.mean(right):.4f}" in capsys.readouterr().out
        found.append(np.mean(right))
    assert found[0] == found[1] and 0 < found[0] < 1
