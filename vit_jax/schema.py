"""The strict schema: config sections are dataclasses, and nothing else is accepted.

`build` makes a dataclass of a nested mapping and refuses what its fields do not describe. A section
that comes in kinds (see `kinds.Kinds`) is built as the dataclass that its key `kind` names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vit_jax.errors import UserError
from vit_jax.hints import (
    SCALARS,
    expectation,
    fields_of,
    is_section,
    is_size,
    kind_of,
    kinds_of,
    shown_value,
    wrong_type,
)
from vit_jax.image_size import parse_size
from vit_jax.kinds import Kinds
from vit_jax.spelling import near, nearest

T = TypeVar("T")


def build(section: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Makes the dataclass `section`, nested dataclasses included, from a nested mapping.

    Fields may be scalars, `None`, `Literal`, unions, tuples (lists are accepted), dataclasses, base
    classes with `kinds`, and dicts from names to any of these.

    - An integer is accepted as a float, and an integral float such as 1e3 as an integer; a bool is
      neither. Floats must be finite.
    - A tuple of two integers may be the text HEIGHTxWIDTH, such as "384x512".
    - `None` is "none" where a `Literal` has the word and `None` itself is not allowed.
    - In a dict of sections an entry that is None is switched off, and dropped. None in place of the
      dict drops all entries.

    Args:
      section: a dataclass, or a base class with `kinds`.
      values: its fields by name; those with a default may be missing.
      where: the dotted name of this section, for messages.

    Raises:
      UserError: for an unknown or missing key or a value of the wrong type, and for what a
          section's own `__post_init__` refuses; the message starts with the dotted key.
    """
    return _build(section, values, where, _dotted_keys(section, where))


def convert(section: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns some fields of a dataclass, checked and converted to their types as in `build`.

    The dataclass is not built, so missing fields stay missing. For `dataclasses.replace`.

    Raises:
      UserError: for an unknown key or a value of the wrong type.
    """
    return _arguments(section, values, where, _dotted_keys(section, where))


def to_dict(section: Any) -> dict[str, Any]:
    """Returns a dataclass as nested dicts and lists that JSON can hold; `build` inverts it.

    The dict of a section that has several kinds begins with the key `kind`.
    """

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            kind = kind_of(type(value))
            fields = {f.name: plain(getattr(value, f.name)) for f in fields_of(type(value))}
            return fields if kind is None else {"kind": kind} | fields
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
            shown = [shown_value(d[key]) if key in d else "(absent)" for d in (old, new)]
            lines.append(f"{name}: {shown[0]} -> {shown[1]}")
    return lines


def _build(section: type[T], values: Any, where: str, places: dict[str, str]) -> T:
    if not isinstance(values, Mapping):
        raise wrong_type(section, values, where)
    if (kinds := kinds_of(section)) is not None:
        section, values = _choose_kind(section, kinds, values, where)
    arguments = _arguments(section, values, where, places)
    for field in fields_of(section):
        if field.name not in values and _is_required(field):
            wanted = expectation(get_type_hints(section)[field.name])
            raise UserError(f"{where}.{field.name}: required, but not set; set it to {wanted}")
    try:
        return section(**arguments)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _arguments(
    section: type, values: Mapping[str, Any], where: str, places: dict[str, str]
) -> dict[str, Any]:
    hints = get_type_hints(section)
    names = {field.name for field in fields_of(section)}
    for key in values:
        if key not in names:
            raise UserError(f"{where}.{key}: no such key{_hint(str(key), section, places)}")
    return {
        key: _convert(hints[key], value, f"{where}.{key}", places) for key, value in values.items()
    }


def _choose_kind(
    section: type, kinds: Kinds[Any], values: Mapping[str, Any], where: str
) -> tuple[type, dict[str, Any]]:
    """The registered dataclass that `kind` names, and the other values."""
    own = kind_of(section)
    kind = values.get("kind", own or kinds.default)
    if kind is None:
        raise UserError(f"{where}.kind: required, but not set{nearest('', kinds.names())}")
    if not isinstance(kind, str) or kind not in kinds.names():
        raise UserError(
            f"{where}.kind: no {kinds.what} {kind!r}{nearest(str(kind), kinds.names())}"
        )
    chosen = kinds[kind]
    if not issubclass(chosen, section):
        raise UserError(f"{where}.kind: expected {own!r}, got {kind!r}")
    return chosen, {key: value for key, value in values.items() if key != "kind"}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str, places: dict[str, str]) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, where, places)
    if is_section(hint):
        return _build(hint, value, where, places)
    if is_size(hint) and isinstance(value, str) and "x" in value:
        with contextlib.suppress(ValueError):
            return parse_size(value)
    if origin is tuple and isinstance(value, list | tuple):
        members = get_args(hint)
        if members[-1] is Ellipsis:
            members = (members[0],) * len(value)
        if len(members) == len(value):
            pairs = enumerate(zip(members, value, strict=True))
            return tuple(_convert(m, item, f"{where}[{i}]", places) for i, (m, item) in pairs)
    elif origin is dict and (isinstance(value, Mapping) or value is None):
        return _convert_dict(hint, value, where, places)
    elif origin is Literal:
        return _convert_literal(hint, value, where)
    elif hint in SCALARS:
        return _convert_scalar(hint, value, where)
    elif origin not in (tuple, dict):
        raise TypeError(f"{where}: a config field cannot be declared as {hint}")
    raise wrong_type(hint, value, where)


def _convert_dict(hint: Any, value: Any, where: str, places: dict[str, str]) -> dict[str, Any]:
    member = get_args(hint)[1]
    if is_section(member):
        value = {k: item for k, item in (value or {}).items() if item is not None}
    if value is None or not all(isinstance(key, str) for key in value):
        raise wrong_type(hint, value, where)
    return {k: _convert(member, item, f"{where}.{k}", places) for k, item in value.items()}


def _convert_literal(hint: Any, value: Any, where: str) -> Any:
    options = get_args(hint)
    if value is None and "none" in options:  # On the command line the two look the same.
        return "none"
    for option in options:
        if type(option) is type(value) and option == value:
            return option
    raise wrong_type(hint, value, where)


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
    raise wrong_type(hint, value, where)


def _convert_union(hint: Any, value: Any, where: str, places: dict[str, str]) -> Any:
    members = get_args(hint)
    containers = [m for m in members if isinstance(value, _container_types(m))]
    if len(containers) == 1:  # its own error says more than the union's
        return _convert(containers[0], value, where, places)
    # The value's own type first, so that 1 stays an integer under `float | int`.
    for member in sorted(members, key=lambda member: member is not type(value)):
        try:
            return _convert(member, value, where, places)
        except UserError:
            continue
    raise wrong_type(hint, value, where)


def _container_types(hint: Any) -> tuple[type, ...]:
    """The types of a container that may stand for `hint`; none for a scalar."""
    if is_section(hint) or get_origin(hint) is dict:
        return (Mapping,)
    return (list, tuple) if get_origin(hint) is tuple else ()


def _hint(key: str, section: type, places: dict[str, str]) -> str:
    """The end of the message about an unknown key: where else it exists, or a near one."""
    siblings = [field.name for field in fields_of(section)]
    if (kinds := kinds_of(section)) is not None:
        others = [k for k in kinds.names() if key in {f.name for f in fields_of(kinds[k])}]
        if others:
            return f" of the {kinds.what} {kind_of(section)!r}; it needs kind={others[0]!r}"
        siblings = ["kind", *siblings]
    meant = key if key in places else near(key, siblings) or near(key, list(places))
    if meant is None:
        return f"; the keys there are {', '.join(siblings) or '(none)'}"
    return f"; did you mean {(meant if meant in siblings else places[meant])!r}?"


def _dotted_keys(section: type, where: str, outer: tuple[type, ...] = ()) -> dict[str, str]:
    """The keys of a section and of those in it, each with the first dotted name that ends so."""
    kinds = kinds_of(section)
    if kinds is not None and kind_of(section) is None:
        keys: dict[str, str] = {}
        for name in reversed(kinds.names()):
            keys |= _dotted_keys(kinds[name], where, (section, *outer))
        return {"kind": f"{where}.kind"} | keys
    hints = get_type_hints(section)
    keys = {field.name: f"{where}.{field.name}" for field in fields_of(section)}
    for name, hint in [(name, hints[name]) for name in keys]:
        inner = f"{where}.{name}.NAME" if get_origin(hint) is dict else f"{where}.{name}"
        for member in get_args(hint) or (hint,):
            if is_section(member) and member not in (section, *outer):
                keys = _dotted_keys(member, inner, (section, *outer)) | keys
    return keys
