"""Config sections that come in kinds."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pytest

from vit_jax.errors import UserError
from vit_jax.kinds import Kinds
from vit_jax.options import field_docs
from vit_jax.schema import build, to_dict


@dataclasses.dataclass(frozen=True)
class Eval:
    """A base class with fields that all kinds share."""

    kinds: ClassVar[Kinds[Eval]] = Kinds("evaluator", default="classification")
    kind: ClassVar[str]

    split: str
    """The split to score."""
    batch_size: int | None = None
    """Images at once.

    None takes the default.
    """


@Eval.kinds.register("classification")
@dataclasses.dataclass(frozen=True)
class Classification(Eval):
    top_k: tuple[int, ...] = (1, 5)


@Eval.kinds.register("few_shot")
@dataclasses.dataclass(frozen=True)
class FewShot(Eval):
    shots: int = 5
    """Examples of each class."""


class Objective:
    kinds: ClassVar[Kinds[Objective]] = Kinds("objective")


@Objective.kinds.register("masked")
@dataclasses.dataclass(frozen=True)
class Masked(Objective):
    share: float = 0.5


@dataclasses.dataclass(frozen=True)
class Experiment:
    evals: dict[str, Eval] = dataclasses.field(default_factory=dict)
    objective: Objective | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        build(Experiment, values)
    return str(error.value)


def test_a_section_is_built_as_its_kind() -> None:
    values = {
        "evals": {"val": {"split": "val"}, "few": {"kind": "few_shot", "split": "a", "shots": 1}},
        "objective": {"kind": "masked"},
    }
    built = build(Experiment, values)
    assert built.evals == {"val": Classification("val"), "few": FewShot("a", shots=1)}
    assert built.objective == Masked()
    assert built.evals["few"].kind == "few_shot"
    plain = to_dict(built)
    assert next(iter(plain["evals"]["few"].items())) == ("kind", "few_shot")
    assert build(Experiment, plain) == built
    assert build(FewShot, plain["evals"]["few"]) == built.evals["few"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"evals": {"a": {"kind": "fewshot"}}}, "evals.a.kind: no evaluator 'fewshot'; did you"),
        ({"evals": {"a": {"kind": 3}}}, "evals.a.kind: no evaluator 3; known: classification, few"),
        (
            {"evals": {"a": {"split": "s", "shots": 1}}},
            "'classification'; it needs kind='few_shot'",
        ),
        ({"evals": {"a": {"split": "s", "topk": 1}}}, "did you mean 'top_k'?"),
        (
            {"evals": {"a": {"split": "s", "zz": 1}}},
            "keys there are kind, split, batch_size, top_k",
        ),
        ({"evals": {"a": {}}}, "config.evals.a.split: required"),
        ({"objective": {}}, "config.objective.kind: required, but not set; known: masked"),
        ({"objective": {"kind": "masked", "shots": 1}}, "did you mean 'config.evals.NAME.shots'?"),
    ],
)
def test_mistakes_name_the_kind(values: dict[str, Any], message: str) -> None:
    assert message in refusal(values)


def test_none_switches_entries_off() -> None:
    built = build(Experiment, {"evals": {"val": None, "test": {"split": "test"}}})
    assert list(built.evals) == ["test"]
    assert build(Experiment, {"evals": None}).evals == {}
    assert "config.counts.a: expected an integer, such as 8, got None" in refusal(
        {"counts": {"a": None}}
    )
    assert "config.counts: expected named entries" in refusal({"counts": None})


def test_one_name_is_one_class() -> None:
    with pytest.raises(ValueError, match="'few_shot' is already .*FewShot"):
        Eval.kinds.register("few_shot")(Masked)
    assert Eval.kinds.register("few_shot")(FewShot) is FewShot  # as when a config is read again
    assert Eval.kinds.names() == ("classification", "few_shot")
    assert Eval.kinds["few_shot"] is FewShot
    with pytest.raises(UserError, match="no evaluator 'few'"):
        Eval.kinds["few"]


def test_descriptions_of_fields() -> None:
    assert field_docs(FewShot) == {
        "split": "The split to score.",
        "batch_size": "Images at once.\n\nNone takes the default.",
        "shots": "Examples of each class.",
    }
    assert field_docs(dataclasses.make_dataclass("Made", [("x", int)])) == {}
