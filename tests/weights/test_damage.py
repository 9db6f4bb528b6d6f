"""Weight files and descriptions that are damaged anywhere: equal, or refused in one line."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.small_models import SMALL, random_params
from vit_jax.errors import UserError
from vit_jax.weights.files import open_weights, write_weights
from vit_jax.weights.load import params_for

SETTINGS = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
DAMAGE = st.tuples(
    st.sampled_from(["bit", "cut", "zeros", "doubled"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 7),
)
FORMS = {
    "google": ("w.npz", ("w.npz", "w.json")),
    "timm": ("model.safetensors", ("model.safetensors", "config.json")),
    "huggingface": (
        "model.safetensors",
        ("model.safetensors", "config.json", "preprocessor_config.json"),
    ),
}


@functools.cache
def _whole(layout: str) -> dict[str, bytes]:
    name, files = FORMS[layout]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name
        write_weights(path, random_params(SMALL), SMALL, layout=layout, class_names=tuple("abcde"))
        return {file: (Path(directory) / file).read_bytes() for file in files}


def _damaged(data: bytes, how: str, where: float, bit: int) -> bytes:
    place = int(where * len(data))
    match how:
        case "bit":
            return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
        case "cut":
            return data[:place]
        case "zeros":
            return data[:place] + bytes(min(16, len(data) - place)) + data[place + 16 :]
        case _:
            return data[:place] + data[max(place - 16, 0) :]


def _read(path: Path) -> Any:
    """All that a reader learns; None if it is refused in one line."""
    try:
        weights = open_weights(path)
        params, model = params_for(weights, weights.model)
        arrays = jax.tree.map(np.asarray, params)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 20_000
        return None
    return arrays, model, weights.class_names


@pytest.mark.parametrize("layout", FORMS)
@SETTINGS
@given(damage=DAMAGE)
def test_a_damaged_weight_file(tmp_path: Path, layout: str, damage: Any) -> None:
    name, _ = FORMS[layout]
    for file, data in _whole(layout).items():
        (tmp_path / file).write_bytes(data if file != name else _damaged(data, *damage))
    found = _read(tmp_path / name)
    if found is not None:
        arrays, model, names = found
        jax.tree.map(np.testing.assert_array_equal, arrays, random_params(SMALL))
        assert names == tuple("abcde")
        assert model == SMALL or layout != "google"  # whose preprocessing has antialiasing


@pytest.mark.parametrize("layout", FORMS)
@SETTINGS
@given(damage=DAMAGE, which=st.integers(0, 1))
def test_a_damaged_description(tmp_path: Path, layout: str, damage: Any, which: int) -> None:
    name, (_, *descriptions) = FORMS[layout]
    chosen = descriptions[which % len(descriptions)]
    for file, data in _whole(layout).items():
        (tmp_path / file).write_bytes(data if file != chosen else _damaged(data, *damage))
    found = _read(tmp_path / name)
    # Ours has a checksum; others' configs may become another config.
    if found is not None and layout == "google":
        assert found[1:] == (SMALL, tuple("abcde"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@pytest.mark.parametrize("layout", FORMS)
@SETTINGS
@given(data=st.data())
def test_any_value_in_the_place_of_another(tmp_path: Path, layout: str, data: Any) -> None:
    name, (_, *descriptions) = FORMS[layout]
    for file, content in _whole(layout).items():
        (tmp_path / file).write_bytes(content)
    chosen = data.draw(st.sampled_from(descriptions))
    stated = json.loads(_whole(layout)[chosen])
    stated.pop("crc32", None)
    section = stated
    while True:
        key = data.draw(st.sampled_from(sorted(section)))
        if not isinstance(section[key], dict) or not section[key] or data.draw(st.booleans()):
            break
        section = section[key]
    section[key] = data.draw(JSON)
    (tmp_path / chosen).write_text(json.dumps(stated))
    _read(tmp_path / name)
