"""Config files: Python that makes a config, run with its argument and then overridden.

Config files that take an argument, as in `--config=FILE:ARGUMENT`, read it with `parse_argument`.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import inspect
import itertools
import re
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vit_jax.errors import UserError
from vit_jax.spelling import near, nearest

_NAMED_VALUES = {"true": True, "false": False, "none": None, "null": None}
_module_count = itertools.count()

MODULE_PREFIX = "_vit_jax_config_"
"""Starts the names under which config files are imported; no other process can import them."""


def load_config(spec: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Runs a config file and returns its config, overridden, as a plain nested dict.

    Args:
      spec: `FILE.py` or `FILE.py:ARGUMENT`. A file in the current directory comes first, then,
          for `configs/…`, the installed one. Its `get_config` is called with the argument, if
          there is one, and returns an `ml_collections.ConfigDict` or a dict.
      overrides: such as `--config.optimizer.lr=0.01`. The value is a Python literal, or `true`,
          `false`, `none` or `null` in any case; otherwise it is text. `none` in place of a section
          switches it off, as in `--config.evals.val=none`. Field references of the config follow
          the fields they refer to.

    Raises:
      UserError: a missing file, a wrong argument or override, or any exception in the file, with
          its line.
    """
    match = re.fullmatch(r"(.*?\.py)(?::(.*))?", spec, re.DOTALL)
    if match is None:
        raise UserError(f"config {spec!r}: write --config=FILE.py or --config=FILE.py:ARGUMENT")
    name, argument = match.groups()
    return apply_overrides(_run_file(name, _find_file(name), argument), overrides)


def apply_overrides(config: Any, overrides: Sequence[str]) -> dict[str, Any]:
    """Changes a config (a dict or ConfigDict, in place) and returns it as a plain nested dict.

    Raises:
      UserError: an override is not `--config.SECTION.KEY=VALUE`, or cannot be applied.
    """
    for override in overrides:
        try:
            _override(config, override)
        except Exception as error:  # wrong form, or a field reference that cannot follow
            raise UserError(f"override {override!r}: {error}") from error
    return _plain(config, "config")


def parse_argument(
    text: str | None, /, *fields: str, **defaults: str | None
) -> types.SimpleNamespace:
    """Parses the text after `:` of `--config=FILE:TEXT`, as in `b16,cifar10,size=384`.

    Args:
      text: comma-separated values in the order of the fields, or `name=value`.
      *fields: names of the values.
      **defaults: values of the fields that may be missing; a name that is not among `fields`
          is one more field, after them.

    Returns:
      An object with one attribute for each field; those found in `text` are strings.

    Raises:
      UserError: a field without default is missing, or a value is unknown or given twice.
    """
    names = list(dict.fromkeys([*fields, *defaults]))
    usage = ",".join(f"[{n.upper()}]" if n in defaults else n.upper() for n in names)
    usage = f"config argument must be {usage}"
    positions = iter(names)
    found: dict[str, str] = {}
    for item in (text or "").split(","):
        name, named, value = item.partition("=")
        if named:
            name = name.strip()
            if name not in names:
                raise UserError(f"{usage}; no field {name!r} in {text!r}{nearest(name, names)}")
        else:
            name, value = next(positions, ""), item
            if not name:
                raise UserError(f"{usage}; {text!r} has more values")
        if name in found:
            raise UserError(f"{usage}; {text!r} gives {name.upper()} twice")
        if value.strip():
            found[name] = value.strip()
    missing = [n.upper() for n in names if n not in found and n not in defaults]
    if missing:
        raise UserError(f"{usage}; {text or ''!r} lacks {', '.join(missing)}")
    return types.SimpleNamespace(**{**defaults, **found})


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles the source every time, so that a config leaves no bytecode beside it."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _find_file(name: str) -> Path:
    file = Path(name)
    if file.is_file():
        return file.resolve()
    installed = _installed_configs()
    known = {f"configs/{f.relative_to(installed).as_posix()}": f for f in installed.rglob("*.py")}
    known = {k: known[k] for k in sorted(known) if not k.endswith("__init__.py")}
    if name in known:
        return known[name].resolve()
    raise UserError(f"config file {name!r} not found{nearest(name, known)}")


def _installed_configs() -> Path:
    spec = importlib.util.find_spec("vit_jax.configs")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(__file__).parent.parent / "configs"  # a source tree that is not installed


def _run_file(name: str, file: Path, argument: str | None) -> Any:
    try:
        get_config = _load_function(name, file)
        arguments = () if argument is None else (argument,)
        try:
            inspect.signature(get_config).bind(*arguments)
        except TypeError as error:
            raise UserError(_argument_message(name, argument)) from error
        config = get_config(*arguments)
    except UserError:
        raise
    except Exception as error:
        line = _line(error, file)
        place = name if line is None else f"{name}, line {line}"
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        message = " ".join(message.split())
        raise UserError(f"{place}: {type(error).__name__}: {message}") from error
    if not _is_section(config):
        kind = type(config).__name__
        raise UserError(f"{name}: get_config must return a ConfigDict or a dict, got {kind}")
    return config


def _load_function(name: str, file: Path) -> Callable[..., Any]:
    unique = f"{MODULE_PREFIX}{next(_module_count)}_{file.stem}"
    loader = _SourceLoader(unique, str(file))
    spec = importlib.util.spec_from_file_location(unique, file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module  # dataclasses and pickle look a class's module up there
    loader.exec_module(module)
    function = getattr(module, "get_config", None)
    if not callable(function):
        raise UserError(f"{name}: defines no function get_config; it must return the config")
    return function


def _argument_message(name: str, argument: str | None) -> str:
    if argument is None:
        return f"{name}: this config needs an argument; write --config={name}:ARGUMENT"
    return f"{name}: this config takes no argument, got {argument!r}; write --config={name}"


def _line(error: Exception, file: Path) -> int | None:
    """The line of the config file that raised the error, if it did."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno
    frames = [(f.f_code.co_filename, line) for f, line in traceback.walk_tb(error.__traceback__)]
    return next((line for filename, line in reversed(frames) if filename == str(file)), None)


# Overrides and values.


def _override(config: Any, override: str) -> None:
    """Sets one value of a config of dicts and ConfigDicts, in place."""
    path, equals, text = override.partition("=")
    parts = path.removeprefix("--").split(".")
    if not equals or parts[0] != "config" or len(parts) < 2 or not all(parts):
        raise UserError("write --config.SECTION.KEY=VALUE")
    section = config
    for depth, part in enumerate(parts[1:-1], 2):
        if part not in section or section[part] is None:
            _set(section, part, {})
        section = section[part]
        if not _is_section(section):
            name = ".".join(parts[:depth])
            raise UserError(f"{name} is {section!r}, not a section with keys of its own")
    value = _read_value(text)
    if value is None:
        _check_switched_off(section, parts[-1])
    _set(section, parts[-1], value)


def _check_switched_off(section: Any, name: str) -> None:
    """Refuses to switch off a section that does not exist, beside one of nearly that name."""
    sections = [key for key in section if _is_section(section[key])]
    if name in section or len(sections) < len(section):
        return
    if (meant := near(name, sections)) is not None:
        raise UserError(f"no section {name!r}; did you mean {meant!r}?")


def _set(section: Any, key: str, value: Any) -> None:
    if isinstance(section, dict):
        section[key] = value
    else:  # the schema checks names and types later, and its messages are better
        with section.unlocked(), section.ignore_type():
            section[key] = None  # otherwise ConfigDict casts to the old type: True to 1.0
            section[key] = value


def _read_value(text: str) -> Any:
    if text.lower() in _NAMED_VALUES:
        return _NAMED_VALUES[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _plain(value: Any, where: str) -> Any:
    """Resolves ConfigDicts and field references into plain dicts, lists, tuples and scalars."""
    from ml_collections import ConfigDict, FieldReference

    if isinstance(value, FieldReference):
        try:
            value = value.get()
        except Exception as error:  # a required placeholder, or an operation that fails
            raise UserError(f"{where}: {error}; set it with --{where}=VALUE") from error
    if isinstance(value, ConfigDict):
        items = value.items(preserve_field_references=True)
        return {key: _plain(item, f"{where}.{key}") for key, item in items}
    if isinstance(value, dict):
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = (_plain(item, f"{where}[{i}]") for i, item in enumerate(value))
        return tuple(items) if isinstance(value, tuple) else list(items)
    return value


def _is_section(value: Any) -> bool:
    from ml_collections import ConfigDict, FrozenConfigDict

    return isinstance(value, dict | ConfigDict) and not isinstance(value, FrozenConfigDict)
