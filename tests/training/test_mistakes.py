"""Configs with random mistakes: each is a run or a `UserError`, and nothing else."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vit_jax.config import load_config
from vit_jax.errors import UserError
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import make_evaluations, prepare

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 300),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "train", "train[:5%]", "test[5:", "bfloat16", "ViT-B/16", "digits", "/"]),
    st.text(max_size=8),
    st.lists(st.integers(-1, 64), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def sections(config: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [value for value in config.values() if isinstance(value, dict)]
    return [config, *(section for value in inner for section in sections(value))]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    values = load_config("configs/quickstart.py")
    values["data"]["data_dir"] = str(tmp_path_factory.mktemp("data"))
    values["optimizer"]["micro_batches"] = 2
    values["mesh"] = {"data": 1}
    # Opens the digits once, so that the examples below take their time for themselves.
    prepare(build(TrainConfig, values))
    return values


@pytest.mark.slow
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_mutated_config_runs_or_is_the_users_mistake(
    data: st.DataObject, config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = copy.deepcopy(config)
    for _ in range(data.draw(st.integers(1, 2), "mistakes")):
        section = data.draw(st.sampled_from(sections(values)), "section")
        key = data.draw(st.sampled_from([*section, "lr", "no_such_key"]), "key")
        if data.draw(st.booleans(), "remove"):
            section.pop(key, None)
        else:
            section[key] = data.draw(VALUES, "value")
    try:
        setup = prepare(build(TrainConfig, values))
        make_evaluations(setup).close()
    except UserError as error:
        assert len(str(error).splitlines()) == 1
