from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.real_processes import run_program
from vit_jax.errors import UserError
from vit_jax.image_size import parse_size
from vit_jax.schema import build, difference, to_dict
from vit_jax.spelling import nearest


@dataclasses.dataclass(frozen=True)
class Optimizer:
    lr: float
    name: Literal["sgd", "adam"] = "sgd"
    clip_norm: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise UserError(f"lr must not be negative, got {self.lr}")


@dataclasses.dataclass(frozen=True)
class Data:
    train: str = "train"
    batch_size: int = 512


@dataclasses.dataclass(frozen=True)
class Eval:
    split: str
    top_k: tuple[int, ...] = (1, 5)


@dataclasses.dataclass(frozen=True)
class Experiment:
    optimizer: Optimizer
    data: Data = Data()
    image_size: int | tuple[int, int] = 224
    total_steps: int | None = None
    teacher: Data | None = None
    evals: dict[str, Eval] = dataclasses.field(default_factory=dict)
    mesh: dict[str, int] = dataclasses.field(default_factory=dict)


FULL: dict[str, Any] = {
    "optimizer": {"lr": 0.03, "name": "adam", "clip_norm": 1, "betas": [0.9, 0.95]},
    "data": {"train": "train[:98%]", "batch_size": 1e3},
    "image_size": (384, 512),
    "total_steps": 500,
    "teacher": {"batch_size": 8},
    "evals": {"val": {"split": "validation", "top_k": [1]}, "test": {"split": "test"}},
    "mesh": {"data": -1, "fsdp": 2},
}


def with_value(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(FULL)
    *sections, key = path.split(".")
    section = values
    for name in sections:
        section = section[name]
    section[key] = value
    return values


# build


def test_builds_nested_sections() -> None:
    built = build(Experiment, FULL)
    assert built == Experiment(
        optimizer=Optimizer(lr=0.03, name="adam", clip_norm=1.0, betas=(0.9, 0.95)),
        data=Data(train="train[:98%]", batch_size=1000),
        image_size=(384, 512),
        total_steps=500,
        teacher=Data(batch_size=8),
        evals={"val": Eval("validation", (1,)), "test": Eval("test")},
        mesh={"data": -1, "fsdp": 2},
    )
    assert type(built.data.batch_size) is int
    assert type(built.optimizer.clip_norm) is float


def test_absent_keys_take_their_defaults() -> None:
    assert build(Experiment, {"optimizer": {"lr": 1}}) == Experiment(Optimizer(1.0))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        # Names.
        ("optimizer.learning_rate", 1, "optimizer.learning_rate: no such key; did you mean 'lr'?"),
        ("optimizer.clip_nrom", 1, "optimizer.clip_nrom: no such key; did you mean 'clip_norm'?"),
        ("batch_size", 1, "batch_size: no such key; did you mean 'config.data.batch_size'?"),
        ("data.bets", 1, "data.bets: no such key; did you mean 'config.optimizer.betas'?"),
        ("data.splits", 1, "data.splits: no such key; did you mean 'config.evals.NAME.split'?"),
        ("data.zzz", 1, "data.zzz: no such key; the keys there are train, batch_size"),
        ("evals.val.topk", 1, "evals.val.topk: no such key; did you mean 'top_k'?"),
        ("evals.new", {}, "evals.new.split: required, but not set; set it to text"),
        # Types.
        (
            "data.batch_size",
            "512",
            "data.batch_size: expected an integer, such as 8, got '512' (str)",
        ),
        (
            "data.batch_size",
            0.5,
            "data.batch_size: expected an integer, such as 8, got 0.5 (float)",
        ),
        (
            "data.batch_size",
            True,
            "data.batch_size: expected an integer, such as 8, got True (bool)",
        ),
        (
            "data.batch_size",
            float("inf"),
            "data.batch_size: expected an integer, such as 8, got inf (float)",
        ),
        (
            "data.batch_size",
            None,
            "data.batch_size: expected an integer, such as 8, got None (NoneType)",
        ),
        ("data.train", 1, "data.train: expected text, such as 'train', got 1 (int)"),
        ("optimizer.nesterov", 1, "optimizer.nesterov: expected true or false, got 1 (int)"),
        (
            "optimizer.lr",
            False,
            "optimizer.lr: expected a finite number, such as 0.9, got False (bool)",
        ),
        (
            "optimizer.lr",
            float("nan"),
            "optimizer.lr: expected a finite number, such as 0.9, got nan (float)",
        ),
        ("optimizer.lr", 10**400, "optimizer.lr: expected a finite number, such as 0.9, got 1000"),
        (
            "optimizer.name",
            "adm",
            "optimizer.name: expected one of 'sgd', 'adam', got 'adm' (str); did you mean 'adam'?",
        ),
        (
            "image_size",
            "big",
            "image_size: expected an integer or HEIGHTxWIDTH, such as 8 or 384x512, got 'big'",
        ),
        (
            "image_size",
            (1, 2, 3),
            "image_size: expected HEIGHTxWIDTH, such as 384x512, got (1, 2, 3)",
        ),
        ("image_size", (1, "2"), "image_size[1]: expected an integer, such as 8, got '2' (str)"),
        (
            "optimizer.betas",
            "ab",
            "optimizer.betas: expected 2 finite numbers, such as (0.9,0.95), got 'ab' (str)",
        ),
        (
            "evals.val.top_k",
            1,
            "evals.val.top_k: expected any number of integers, such as (8,), got 1",
        ),
        ("mesh.fsdp", 1.5, "mesh.fsdp: expected an integer, such as 8, got 1.5 (float)"),
        (
            "mesh",
            {1: 2},
            "mesh: expected named entries, each of them an integer, got {1: 2} (dict)",
        ),
        # Sections.
        (
            "optimizer",
            "adam",
            "optimizer: expected a section, got 'adam' (str); set one of its keys",
        ),
        ("teacher", 3, "teacher: expected a section, or none, got 3 (int)"),
        ("teacher", {"trian": ""}, "teacher.trian: no such key; did you mean 'train'?"),
        ("optimizer.lr", -1, "optimizer: lr must not be negative, got -1.0"),
    ],
)
def test_refuses(path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        build(Experiment, with_value(path, value))
    assert str(error.value).startswith(f"config.{message}")
    assert "\n" not in str(error.value)


def test_sizes_are_read_as_height_x_width() -> None:
    assert build(Experiment, with_value("image_size", "384x512")).image_size == (384, 512)
    for text in ("384x", "x512", "384x512x3", "-1x2", "384 x 512"):
        with pytest.raises(UserError, match="HEIGHTxWIDTH, such as 8 or 384x512"):
            build(Experiment, with_value("image_size", text))
    assert [parse_size("224"), parse_size("8x12")] == [224, (8, 12)]
    old, new = {"image_size": 224}, {"image_size": [384, 512]}
    assert difference(old, new) == ["image_size: 224 -> 384x512"]


def test_refuses_missing_section() -> None:
    with pytest.raises(
        UserError, match=r"^run\.optimizer: required, but not set; set it to a section$"
    ):
        build(Experiment, {}, where="run")


def test_undescribable_field_is_a_fault_of_the_program() -> None:
    section = dataclasses.make_dataclass("section", [("x", set)])
    with pytest.raises(TypeError, match="config.x"):
        build(section, {"x": {1}})


def test_own_type_comes_first_in_a_union() -> None:
    section = dataclasses.make_dataclass("section", [("x", float | int | str)])
    assert type(build(section, {"x": 1}).x) is int
    assert type(build(section, {"x": 1.0}).x) is float


def test_none_is_a_word_where_nothing_else_is_meant() -> None:
    crop = Literal["inception", "none"]
    section = dataclasses.make_dataclass("section", [("x", crop), ("y", crop | None, "none")])
    assert dataclasses.astuple(build(section, {"x": None, "y": None})) == ("none", None)
    assert dataclasses.astuple(build(section, {"x": "none"})) == ("none", "none")


def test_round_trip_through_json() -> None:
    built = build(Experiment, FULL)
    plain = to_dict(built)
    assert json.loads(json.dumps(plain)) == plain
    assert build(Experiment, plain) == built


NAMES = st.sampled_from([*FULL, "lr", "name", "train", "split", "val", "Lr", ""])
KEYS = NAMES | st.text() | st.integers()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner),
    max_leaves=5,
)


def mutate(values: Any, data: st.DataObject) -> Any:
    """Replaces, adds or removes one entry at a random depth."""
    if not isinstance(values, dict) or not values or data.draw(st.integers(0, 3)) == 0:
        return data.draw(VALUES)
    action = data.draw(st.sampled_from(["descend", "descend", "add", "remove"]))
    key = data.draw(KEYS if action == "add" else st.sampled_from(list(values)))
    changed = {k: v for k, v in values.items() if k != key}
    if action != "remove":
        changed[key] = mutate(values.get(key), data)
    return changed


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_mapping_builds_or_is_the_users_mistake(data: st.DataObject) -> None:
    values = FULL
    for _ in range(data.draw(st.integers(1, 3))):
        values = mutate(values, data)
    try:
        built = build(Experiment, values)
    except UserError as error:
        assert str(error).startswith("config")
    else:
        assert build(Experiment, to_dict(built)) == built


def test_numpy_scalars_become_python_numbers() -> None:
    values = {"data": {"batch_size": np.int64(8)}, "optimizer": {"lr": np.float32(0.5)}}
    built = build(Experiment, values)
    assert built == Experiment(Optimizer(0.5), Data(batch_size=8))
    assert json.dumps(to_dict(built))


# nearest and difference


@pytest.mark.parametrize(
    ("name", "known", "end"),
    [
        ("imagenet2013", ["cifar10", "imagenet2012"], "; did you mean 'imagenet2012'?"),
        ("vit-b/16", ["ViT-L/16", "ViT-B/16"], "; did you mean 'ViT-B/16'?"),
        ("wd", ["lr", "weight_decay"], "; did you mean 'weight_decay'?"),
        ("zzz", ["a", "b"], "; known: a, b"),
        ("zzz", [], "; known: (none)"),
        ("zzz", map(str, range(14)), "; known: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …"),
    ],
)
def test_nearest(name: str, known: Any, end: str) -> None:
    assert nearest(name, known) == end


def test_difference() -> None:
    old = {"optimizer": {"lr": 0.01, "name": "sgd"}, "seed": 0, "init_from": None}
    new = {"optimizer": {"lr": 0.03, "name": "sgd"}, "seed": 0, "evals": {"test": {"k": 1}}}
    assert difference(old, new) == [
        "optimizer.lr: 0.01 -> 0.03",
        "init_from: None -> (absent)",
        "evals: (absent) -> {'test': {'k': 1}}",
    ]
    assert difference(old, copy.deepcopy(old)) == []


def test_schema_needs_no_ml_collections() -> None:
    loaded = json.loads(run_program("tests.programs.loaded", "vit_jax.config"))["loaded"]
    assert "vit_jax" in loaded and "ml_collections" not in loaded
