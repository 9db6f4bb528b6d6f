"""What may change when a run resumes: what changes nothing of what was computed."""

import copy
from typing import Any

import pytest

from vit_jax.runs.changes import changes
from vit_jax.schema import build, to_dict
from vit_jax.training.config import TrainConfig, as_values

OPTIONS: dict[str, Any] = {
    "model": {"name": "ViT-mu/8", "image_size": 16},
    "data": {"dataset": "/pictures", "batch_size": 4},
    "optimizer": {"lr": 0.1},
    "total_steps": 10,
    "evals": {"val": {"split": "test", "every_steps": 5}, "last": {"split": "test"}},
}


def config(**sections: Any) -> dict[str, Any]:
    options = copy.deepcopy(OPTIONS)
    for name, values in sections.items():
        if isinstance(values, dict):
            options.setdefault(name, {}).update(values)
        else:
            options[name] = values
    made: TrainConfig = build(TrainConfig, as_values(options))
    return to_dict(made)


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"on_error": "skip"}},
        {"data": {"workers": 7, "dataset": "/elsewhere/pictures"}},
        {"log_every": 3},
        {"checkpoint": {"every_steps": 7, "keep": 5}},
        {"evals": {"val": {"split": "test", "every_steps": 2}}},
        {"optimizer": {"micro_batches": 2}},
        {"callbacks": ()},
    ],
)
def test_it_may(change: dict[str, Any]) -> None:
    assert changes(config(), config(**change)) == []


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"data": {"dataset": "digits"}}, "data.dataset"),
        ({"data": {"batch_size": 8}}, "data.batch_size"),
        ({"evals": {"last": {"split": "test", "every_steps": 2}}}, "evals.last.every_steps"),
        ({"total_steps": 20}, "total_steps: 10 -> 20"),
        ({"seed": 1}, "seed"),
    ],
)
def test_it_may_not(change: dict[str, Any], key: str) -> None:
    (line,) = changes(config(), config(**change))
    assert line.startswith(key)


@pytest.mark.parametrize("dropped", [{"dropout": 0.1}, {"stochastic_depth": 0.1}])
def test_micro_batches_may_not_while_anything_is_dropped(dropped: dict[str, Any]) -> None:
    model = OPTIONS["model"] | dropped
    (line,) = changes(config(model=model), config(model=model, optimizer={"micro_batches": 2}))
    assert line == "optimizer.micro_batches: 1 -> 2"


def test_the_steps_of_an_evaluation_that_decides_may_not() -> None:
    early_stop = {"eval": "val"}
    every_two = {"val": {"split": "test", "every_steps": 2}}
    lines = changes(config(early_stop=early_stop), config(early_stop=early_stop, evals=every_two))
    assert lines == ["evals.val.every_steps: 5 -> 2"]
