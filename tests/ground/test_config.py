from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vit_jax import config as config_module
from vit_jax.config import load_config, parse_argument
from vit_jax.errors import UserError


def write(directory: Path, text: str, name: str = "c.py") -> Path:
    file = directory / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# parse_argument


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b16,cifar10", {"model": "b16", "dataset": "cifar10", "size": "224"}),
        ("b16, cifar10, 384", {"model": "b16", "dataset": "cifar10", "size": "384"}),
        ("dataset=a:b/c.d=e,model=x", {"model": "x", "dataset": "a:b/c.d=e", "size": "224"}),
        ("b16,size=,dataset=c", {"model": "b16", "dataset": "c", "size": "224"}),
        ("b16,c,", {"model": "b16", "dataset": "c", "size": "224"}),
    ],
)
def test_parse_argument(text: str, expected: dict[str, str]) -> None:
    assert vars(parse_argument(text, "model", "dataset", size="224")) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "'' lacks MODEL, DATASET"),
        ("b16", "'b16' lacks DATASET"),
        ("b16,", "'b16,' lacks DATASET"),
        ("b16,c,1,2", "'b16,c,1,2' has more values"),
        ("b16,data=c", "no field 'data' in 'b16,data=c'; did you mean 'dataset'?"),
        ("b16,model=l16", "'b16,model=l16' gives MODEL twice"),
    ],
)
def test_parse_argument_refuses(text: str | None, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_argument(text, "model", "dataset", size="224")
    assert str(error.value) == f"config argument must be MODEL,DATASET,[SIZE]; {message}"


# load_config

CONFIG = """
from ml_collections import ConfigDict, config_dict

def get_config(argument=None):
    config = ConfigDict({"optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}, "epochs": 3})
    config.total_steps = config.get_ref("epochs") * 10
    config.teacher = {"train": "train"}
    config.data = config_dict.placeholder(str)
    config.argument = argument
    config.list = [ConfigDict({"a": 1})]
    return config.lock()
"""


def test_loads_a_plain_dict(here: Path) -> None:
    write(here, CONFIG)
    loaded = load_config("c.py")
    assert loaded == {
        "optimizer": {"lr": 0.1, "betas": (0.9, 0.99)},
        "epochs": 3,
        "total_steps": 30,
        "teacher": {"train": "train"},
        "data": None,
        "argument": None,
        "list": [{"a": 1}],
    }
    assert type(loaded["optimizer"]) is dict
    assert type(loaded["list"][0]) is dict
    assert [file.name for file in here.iterdir()] == ["c.py"]


@pytest.mark.parametrize("text", ["b16,cifar10", "a=b:c/d.py:e", ""])
def test_passes_the_argument(here: Path, text: str) -> None:
    file = write(here, CONFIG)
    assert load_config(f"{file}:{text}")["argument"] == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.01", 0.01),
        ("1e-3", 1e-3),
        ("10_000", 10_000),
        ("true", True),
        ("FALSE", False),
        ("none", None),
        ("null", None),
        ("None", None),
        ("384,512", (384, 512)),
        ("[1, 'a']", [1, "a"]),
        ("{'a': {'b': 1}}", {"a": {"b": 1}}),
        ("adam", "adam"),
        ("'16'", "16"),
        ("a=b", "a=b"),
        ("train[:98%]", "train[:98%]"),
        ("gs://bucket/dir", "gs://bucket/dir"),
        ("0123", "0123"),
        ("", ""),
        ("{[]: 1}", "{[]: 1}"),
    ],
)
@pytest.mark.parametrize("path", ["optimizer.lr", "new.section.key", "teacher", "data.x"])
def test_overrides(here: Path, path: str, text: str, value: Any) -> None:
    write(here, CONFIG)
    loaded: Any = load_config("c.py", [f"--config.{path}={text}"])
    for name in path.split("."):
        loaded = loaded[name]
    assert loaded == value
    assert type(loaded) is type(value)


def test_overrides_apply_in_order_and_references_follow(here: Path) -> None:
    write(here, CONFIG)
    loaded = load_config("c.py", ["--config.epochs=5", "--config.epochs=7", "--config.b.c=1"])
    assert (loaded["epochs"], loaded["total_steps"], loaded["b"]) == (7, 70, {"c": 1})


def test_override_that_breaks_a_reference(here: Path) -> None:
    write(here, CONFIG)
    with pytest.raises(UserError, match=r"^override '--config\.epochs={}': unsupported operand"):
        load_config("c.py", ["--config.epochs={}"])
    write(here, CONFIG.replace(".lock()", ""))
    with pytest.raises(UserError, match=r"^config\.total_steps: unsupported operand .*; set it"):
        load_config("c.py", ["--config.epochs={}"])


def test_a_section_that_is_switched_off_must_exist(here: Path) -> None:
    write(here, "def get_config():\n    return {'evals': {'val': {'split': 'a'}}, 'x': {}}")
    assert load_config("c.py", ["--config.evals.val=none"])["evals"] == {"val": None}
    assert load_config("c.py", ["--config.evals=none"])["evals"] is None
    turned_on = ["--config.evals.val=none", "--config.evals.val.split=b"]
    assert load_config("c.py", turned_on)["evals"] == {"val": {"split": "b"}}
    with pytest.raises(UserError, match=r"evals\.vall=none': no section 'vall'.*mean 'val'"):
        load_config("c.py", ["--config.evals.vall=none"])


def test_overrides_of_a_plain_dict(here: Path) -> None:
    write(here, "def get_config():\n    return {'a.b': 1, 'c': {'d': 2}, 'e': None}")
    loaded = load_config("c.py", ["--config.c.d=3", "--config.e.f=4"])
    assert loaded == {"a.b": 1, "c": {"d": 3}, "e": {"f": 4}}


def test_override_fills_a_required_placeholder(here: Path) -> None:
    write(
        here,
        "from ml_collections import ConfigDict, config_dict\n"
        "def get_config():\n"
        "    return ConfigDict({'a': {'b': config_dict.required_placeholder(int)}})\n",
    )
    assert load_config("c.py", ["--config.a.b=1"]) == {"a": {"b": 1}}
    with pytest.raises(UserError, match=r"^config\.a\.b: .*; set it with --config\.a\.b=VALUE$"):
        load_config("c.py")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.seed", "write --config.SECTION.KEY=VALUE"),
        ("--config=3", "write --config.SECTION.KEY=VALUE"),
        ("--config.a..b=3", "write --config.SECTION.KEY=VALUE"),
        ("--config.=3", "write --config.SECTION.KEY=VALUE"),
        ("--seed=3", "write --config.SECTION.KEY=VALUE"),
        (
            "--config.optimizer.lr.x=3",
            "config.optimizer.lr is 0.1, not a section with keys of its own",
        ),
    ],
)
def test_refuses_override(here: Path, override: str, message: str) -> None:
    write(here, CONFIG)
    with pytest.raises(UserError) as error:
        load_config("c.py", [override])
    assert str(error.value) == f"override {override!r}: {message}"


@pytest.mark.parametrize(
    ("source", "spec", "message"),
    [
        (
            "import math\n\ndef get_config():\n    return f()\n\ndef f():\n    return 1 / 0\n",
            "c.py",
            "c.py, line 7: ZeroDivisionError: division by zero",
        ),
        ("\n\nx = y\n", "c.py", "c.py, line 3: NameError: name 'y' is not defined"),
        ("x = 1\nimport no_such_module\n", "c.py", "c.py, line 2: ModuleNotFoundError: No module"),
        (
            "import json\n\ndef get_config():\n    json.loads('{')\n",
            "c.py",
            "c.py, line 4: JSONDecodeError: Expecting property name",
        ),
        ("x = 1\ndef get_config(:\n", "c.py", "c.py, line 2: SyntaxError: "),
        (
            "def get_config():\n    raise ValueError('a\\n  b')\n",
            "c.py",
            "c.py, line 2: ValueError: a b",
        ),
        ("x = 1\n", "c.py", "c.py: defines no function get_config"),
        (
            "def get_config():\n    return 3\n",
            "c.py",
            "c.py: get_config must return a ConfigDict or a dict, got int",
        ),
        (
            "def get_config(argument): ...\n",
            "c.py",
            "c.py: this config needs an argument; write --config=c.py:ARGUMENT",
        ),
        (
            "def get_config(): ...\n",
            "c.py:b16",
            "c.py: this config takes no argument, got 'b16'; write --config=c.py",
        ),
        (
            "from vit_jax.errors import UserError\n\ndef get_config():\n    raise UserError('x')\n",
            "c.py",
            "x",
        ),
        ("", "c.yaml", "config 'c.yaml': write --config=FILE.py or --config=FILE.py:ARGUMENT"),
    ],
)
def test_refuses_file(here: Path, source: str, spec: str, message: str) -> None:
    write(here, source)
    with pytest.raises(UserError) as error:
        load_config(spec)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_dataclasses_of_a_config_file_find_their_module(here: Path) -> None:
    write(
        here,
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass A:\n    x: int = 3\n"
        "def get_config():\n    return {'x': A().x}\n",
    )
    assert load_config("c.py") == {"x": 3}


def test_current_directory_comes_before_the_installed_configs(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path_factory.mktemp("installed")
    monkeypatch.setattr(config_module, "_installed_configs", lambda: installed)
    write(installed, "def get_config():\n    return {'from': 'installed'}", "finetune.py")
    write(installed, "", "__init__.py")
    assert load_config("configs/finetune.py") == {"from": "installed"}
    write(here, "def get_config():\n    return {'from': 'here'}", "configs/finetune.py")
    assert load_config("configs/finetune.py") == {"from": "here"}
    with pytest.raises(UserError) as error:
        load_config("configs/fine_tune.py")
    assert str(error.value) == (
        "config file 'configs/fine_tune.py' not found; did you mean 'configs/finetune.py'?"
    )
