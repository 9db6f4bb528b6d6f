"""A layout of one's own: this file is all it takes to read, write, detect and convert to it."""

import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from tests.small_models import SMALL, assert_same, random_params, refusal
from vit_jax.__main__ import main
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.weights.files import open_weights, write_weights
from vit_jax.weights.layouts import registry
from vit_jax.weights.layouts.layout import Configs, Described, ImageSize, Json, Layout, Values
from vit_jax.weights.layouts.registry import layout_named, layout_names, register_layout
from vit_jax.weights.stored import AnyArray, lazily

# Parameters are stored transposed, under our paths with dots; its config lies in `dotted.json`.


def _matches(names: Collection[str], configs: Configs) -> bool:
    return "vit.embedding.kernel" in names


def _read(
    arrays: Mapping[str, AnyArray], described: Described, image_size: ImageSize | None
) -> tuple[Params, Values]:
    flat = {
        name.removeprefix("vit.").replace(".", "/"): lazily(
            array, np.transpose, shape=array.shape[::-1]
        )
        for name, array in arrays.items()
    }
    return traverse_util.unflatten_dict(flat, sep="/"), {}


def _write(params: Params, model: ModelConfig) -> dict[str, np.ndarray]:
    flat = traverse_util.flatten_dict(params, sep="/")
    return {
        f"vit.{path.replace('/', '.')}": np.ascontiguousarray(np.transpose(leaf))
        for path, leaf in flat.items()
    }


def _read_config(configs: Configs) -> Described:
    config = configs.get("dotted.json", {})
    values = {"norm_epsilon": config["epsilon"]} if config else {}
    return Described(values, tuple(config["classes"]) if config else None)


def _write_configs(
    model: ModelConfig, class_names: tuple[str, ...] | None, loss: str | None
) -> dict[str, Json]:
    return {"dotted.json": {"epsilon": model.norm_epsilon, "classes": list(class_names or ())}}


def _defaults(file_name: str, shorter_side: int) -> Values:
    return {"gelu": "exact", "preprocessing": PreprocessingConfig(mean=(0.1, 0.2, 0.3))}


DOTTED = Layout(
    name="dotted",
    suffix=".safetensors",
    matches=_matches,
    read=_read,
    write=_write,
    config_names=("dotted.json",),
    read_config=_read_config,
    write_configs=_write_configs,
    defaults=_defaults,
)
NAMES = ("a", "b", "c", "d", "e")
MODEL = dataclasses.replace(SMALL, gelu="exact", norm_epsilon=1e-4)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_LAYOUTS", dict(registry._LAYOUTS))
        register_layout(DOTTED)
        yield


def test_it_has_a_name_like_the_others() -> None:
    assert layout_names() == ("google", "timm", "huggingface", "dotted")
    assert layout_named("dotted") is DOTTED
    assert "did you mean 'dotted'" in refusal(layout_named, "doted")


def test_what_is_written_is_detected_and_read(tmp_path: Path) -> None:
    params = random_params(MODEL)
    path = tmp_path / "w.safetensors"
    write_weights(path, params, MODEL, layout="dotted", class_names=NAMES)
    weights = open_weights(path)
    assert (weights.layout, weights.model, weights.class_names) == ("dotted", MODEL, NAMES)
    assert weights.assumed == {}
    assert_same(weights.params, params)


def test_its_own_config_and_defaults_describe_a_file_of_a_hub(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_weights(path, random_params(MODEL), MODEL, layout="dotted", class_names=NAMES)
    assert set(os.listdir(tmp_path)) == {"model.safetensors", "model.json", "dotted.json"}
    (tmp_path / "model.json").unlink()
    weights = open_weights(tmp_path)
    assert weights.model == dataclasses.replace(
        MODEL, preprocessing=PreprocessingConfig(mean=(0.1, 0.2, 0.3))
    )
    assert weights.class_names == NAMES
    assert list(weights.assumed) == ["gelu", "preprocessing"]


def test_convert_knows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, last = tmp_path / "first.npz", tmp_path / "last.npz"
    write_weights(first, random_params(MODEL), MODEL, class_names=NAMES)
    dotted = tmp_path / "w.safetensors"
    assert main(["convert", f"--source={first}", f"--target={dotted}", "--layout=dotted"]) == 0
    assert open_weights(dotted).layout == "dotted"
    assert main(["convert", f"--source={dotted}", f"--target={last}", "--layout=google"]) == 0
    assert last.read_bytes() == first.read_bytes()
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    assert ".safetensors for dotted" in " ".join(capsys.readouterr().out.split())


def test_two_layouts_match_one_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    params = random_params(MODEL)
    arrays = DOTTED.write(params, MODEL)
    save_file(arrays, path)
    register_layout(dataclasses.replace(DOTTED, name="twin"))
    message = refusal(open_weights, path)
    assert f"{path}: " in message and "dotted and twin" in message
    # The description decides, as the message advises.
    assert '{"layout": "dotted"}' in message
    path.with_suffix(".json").write_text('{"layout": "twin"}')
    assert open_weights(path).layout == "twin"


def test_no_layout_matches(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({f"layer.{i:03}": np.zeros((2, 3), np.float32) for i in range(100)}, path)
    message = refusal(open_weights, path)
    assert "no known layout (google, timm, huggingface, dotted)" in message
    assert "layer.000 (2, 3)" in message and "and 60 more" in message
