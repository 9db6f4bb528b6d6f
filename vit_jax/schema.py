"""The strict schema: config sections are dataclasses, and nothing else is accepted.

`build` makes a dataclass of a nested mapping and refuses whatever its fields do not describe.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

from vit_jax.errors import UserError

T = TypeVar("T")

_LISTED_AT_MOST = 12
_WORDS = {bool: "bool", int: "integer", float: "number", str: "string", type(None): "None"}


def build(section: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Makes the dataclass `section`, nested dataclasses included, from a nested mapping.

    Fields may be scalars, `None`, `Literal`, unions, tuples (lists are accepted), dataclasses, and
    dicts from names to any of these. An integer serves as a float, an integral float such as 1e3
    as an integer; a bool is neither. Floats must be finite. `None` is "none" where a `Literal` has
    the word and `None` itself is not allowed.

    Args:
      section: a dataclass.
      values: its fields by name; those with a default may be absent.
      where: the dotted name of this section, for messages.

    Raises:
      UserError: for an unknown or missing key or a value of the wrong type, and for what a
          section's own `__post_init__` refuses; the message starts with the dotted key.
    """
    return _build(section, values, where, _dotted_keys(section, where))


def to_dict(section: Any) -> dict[str, Any]:
    """Returns a dataclass as nested dicts and lists that JSON can hold; `build` inverts it."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in _fields(type(value))}
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    return plain(section)


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lists the leaves in which two nested dicts differ, as `optimizer.lr: 0.01 -> 0.03`."""
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        name = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += difference(before, after, f"{name}.")
        elif before != after or (key in old) != (key in new):
            shown = [repr(d[key]) if key in d else "(absent)" for d in (old, new)]
            lines.append(f"{name}: {shown[0]} -> {shown[1]}")
    return lines


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the end of an error message: "; did you mean 'x'?", or else the known names."""
    known = list(known)
    near = _near(name, known)
    if near is not None:
        return f"; did you mean {near!r}?"
    more = ", …" if len(known) > _LISTED_AT_MOST else ""
    return f"; known: {', '.join(known[:_LISTED_AT_MOST]) or '(none)'}{more}"


def _build(section: type[T], values: Any, where: str, places: dict[str, str]) -> T:
    if not isinstance(values, Mapping):
        raise _wrong_type(section, values, where)
    hints = get_type_hints(section)
    fields = {field.name: field for field in _fields(section)}
    for key in values:
        if key not in fields:
            raise UserError(f"{where}.{key}: no such key{_hint(str(key), list(fields), places)}")
    arguments = {
        key: _convert(hints[key], value, f"{where}.{key}", places) for key, value in values.items()
    }
    for name, field in fields.items():
        if name not in values and _is_required(field):
            raise UserError(f"{where}.{name}: required ({_words(hints[name])}), but not set")
    try:
        return section(**arguments)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _fields(section: type) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(section) if field.init]


def _is_dataclass(hint: Any) -> TypeGuard[type]:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str, places: dict[str, str]) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, where, places)
    if _is_dataclass(hint):
        return _build(hint, value, where, places)
    if origin is tuple and isinstance(value, list | tuple):
        members = get_args(hint)
        if members[-1] is Ellipsis:
            members = (members[0],) * len(value)
        if len(members) == len(value):
            pairs = enumerate(zip(members, value, strict=True))
            return tuple(_convert(m, item, f"{where}[{i}]", places) for i, (m, item) in pairs)
    elif origin is dict and isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            member = get_args(hint)[1]
            return {k: _convert(member, item, f"{where}.{k}", places) for k, item in value.items()}
    elif origin is Literal:
        return _convert_literal(hint, value, where)
    elif hint in _WORDS:
        return _convert_scalar(hint, value, where)
    elif origin not in (tuple, dict):
        raise TypeError(f"{where}: a config field cannot be declared as {hint}")
    raise _wrong_type(hint, value, where)


def _convert_literal(hint: Any, value: Any, where: str) -> Any:
    options = get_args(hint)
    if value is None and "none" in options:  # On the command line the two look the same.
        return "none"
    for option in options:
        if type(option) is type(value) and option == value:
            return option
    raise _wrong_type(hint, value, where)


def _convert_scalar(hint: type, value: Any, where: str) -> Any:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if hint in (int, float) and is_number:
        try:
            if hint is int and value == int(value):
                return int(value)
            if hint is float and math.isfinite(value):
                return float(value)
        except (OverflowError, ValueError):  # int() of inf and nan, float() of a huge integer
            pass
    elif hint not in (int, float) and isinstance(value, hint):
        return value
    raise _wrong_type(hint, value, where)


def _convert_union(hint: Any, value: Any, where: str, places: dict[str, str]) -> Any:
    members = get_args(hint)
    containers = [m for m in members if isinstance(value, _container(m))]
    if len(containers) == 1:  # its own error says more than the union's
        return _convert(containers[0], value, where, places)
    # The value's own type first, so that 1 stays an integer under `float | int`.
    for member in sorted(members, key=lambda member: member is not type(value)):
        try:
            return _convert(member, value, where, places)
        except UserError:
            continue
    raise _wrong_type(hint, value, where)


def _container(hint: Any) -> tuple[type, ...]:
    """The types of a container that may stand for `hint`; none for a scalar."""
    if _is_dataclass(hint) or get_origin(hint) is dict:
        return (Mapping,)
    return (list, tuple) if get_origin(hint) is tuple else ()


def _wrong_type(hint: Any, value: Any, where: str) -> UserError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:79]}…"
    options = [str(option) for option in get_args(hint)] if get_origin(hint) is Literal else []
    near = _near(value, options) if isinstance(value, str) else None
    guess = f"; did you mean {near!r}?" if near else ""
    kind = type(value).__name__
    return UserError(f"{where}: expected {_words(hint)}, got {shown} ({kind}){guess}")


def _words(hint: Any) -> str:
    origin, members = get_origin(hint), get_args(hint)
    if _is_dataclass(hint):
        return "section"
    if origin in (Union, types.UnionType):
        return " or ".join(_words(member) for member in members)
    if origin is Literal:
        return "one of " + ", ".join(repr(option) for option in members)
    if origin is dict:
        return f"section of names, each with {_words(members[1])}"
    if origin is tuple and members[-1] is Ellipsis:
        return f"tuple of any length of {_words(members[0])}"
    if origin is tuple:
        return f"tuple ({', '.join(_words(member) for member in members)})"
    return f"finite {_WORDS[hint]}" if hint is float else _WORDS[hint]


def _hint(key: str, siblings: list[str], places: dict[str, str]) -> str:
    """The end of the message about an unknown key: the same elsewhere, or a near one."""
    near = key if key in places else _near(key, siblings) or _near(key, list(places))
    if near is None or near in siblings:
        return nearest(key, siblings)
    return f"; did you mean {places[near]!r}?"


def _dotted_keys(section: type, where: str, outer: tuple[type, ...] = ()) -> dict[str, str]:
    """The keys of a section and of those in it, each with the first dotted name that ends so."""
    hints = get_type_hints(section)
    keys = {field.name: f"{where}.{field.name}" for field in _fields(section)}
    for name, hint in [(name, hints[name]) for name in keys]:
        inner = f"{where}.{name}.NAME" if get_origin(hint) is dict else f"{where}.{name}"
        for member in get_args(hint) or (hint,):
            if _is_dataclass(member) and member not in (section, *outer):
                keys = _dotted_keys(member, inner, (section, *outer)) | keys
    return keys


def _near(name: str, known: Sequence[str]) -> str | None:
    """The known name that was meant: another case, initials (`learning_rate`, `lr`), or a slip."""
    spellings = {k.lower(): k for k in known}
    name = name.lower()
    if name in spellings:
        return spellings[name]
    for lowered, spelling in spellings.items():
        if lowered == _initials(name) or name == _initials(lowered):
            return spelling
    close = difflib.get_close_matches(name, spellings, n=1)
    return spellings[close[0]] if close else None


def _initials(name: str) -> str:
    words = name.split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else name
