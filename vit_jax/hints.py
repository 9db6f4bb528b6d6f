"""Type hints of config fields: what they stand for, and the words for them in messages."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin

from vit_jax.errors import UserError
from vit_jax.image_size import format_size
from vit_jax.kinds import Kinds
from vit_jax.spelling import near

# What is expected of each type, and an example as it is typed on the command line.
SCALARS = {
    bool: ("true or false", "true"),
    int: ("an integer", "8"),
    float: ("a finite number", "0.9"),
    str: ("text", "'train'"),
    type(None): ("none", "none"),
}
_PLURALS = {int: "integers", float: "finite numbers", str: "texts"}


def kinds_of(section: Any) -> Kinds[Any] | None:
    """The registry of a section that comes in kinds."""
    kinds = getattr(section, "kinds", None)
    return kinds if isinstance(kinds, Kinds) else None


def kind_of(section: type) -> str | None:
    """The name under which a dataclass is registered as a kind."""
    return getattr(section, "kind", None) if kinds_of(section) is not None else None


def fields_of(section: type) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that its constructor takes."""
    return [field for field in dataclasses.fields(section) if field.init]


def is_section(hint: Any) -> TypeGuard[type]:
    """Whether a hint is a dataclass, or the base class of several kinds."""
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or kinds_of(hint) is not None)


def is_size(hint: Any) -> bool:
    """Whether a hint is of two integers, which are a height and a width."""
    return get_origin(hint) is tuple and get_args(hint) == (int, int)


def wrong_type(hint: Any, value: Any, where: str) -> UserError:
    """Returns the error of a value that a hint does not allow."""
    options = [str(option) for option in get_args(hint)] if get_origin(hint) is Literal else []
    meant = near(value, options) if isinstance(value, str) else None
    guess = f"; did you mean {meant!r}?" if meant else ""
    kind = type(value).__name__
    if is_section(hint) and not isinstance(value, Mapping):
        guess = f"; set one of its keys, such as {where}.{_some_key(hint)}"
    return UserError(
        f"{where}: expected {expectation(hint)}, got {shown_value(value)} ({kind}){guess}"
    )


def shown_value(value: Any) -> str:
    """A value in a message: a size as HEIGHTxWIDTH, and what is long cut off."""
    if isinstance(value, list | tuple) and [type(item) for item in value] == [int, int]:
        return format_size((value[0], value[1]))
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"


def expectation(hint: Any) -> str:
    """What a hint expects, with an example as it is typed on the command line."""
    members = [m for m in members_of(hint) if m is not type(None)]
    expected = " or ".join(_expected(member) for member in members)
    examples = " or ".join(filter(None, map(_example, members)))
    expected += f", such as {examples}" if examples else ""
    return f"{expected}, or none" if len(members) < len(members_of(hint)) else expected


def type_words(hint: Any) -> str:
    """What a hint allows, in a few words, such as `integer or HEIGHTxWIDTH`."""
    words = (
        _expected(member).removeprefix("an ").removeprefix("a ") for member in members_of(hint)
    )
    return " or ".join(words).replace("finite ", "")


def members_of(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the hint alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _expected(hint: Any) -> str:
    origin, members = get_origin(hint), get_args(hint)
    if is_section(hint):
        return "a section"
    if origin is Literal:
        return "one of " + ", ".join(repr(option) for option in members)
    if origin is dict:
        return "named entries, each of them " + " or ".join(map(_expected, members_of(members[1])))
    if is_size(hint):
        return "HEIGHTxWIDTH"
    if origin is tuple:
        count = "any number of" if members[-1] is Ellipsis else f"{len(members)}"
        return f"{count} {_PLURALS.get(members[0], 'values')}"
    return SCALARS[hint][0]


def _example(hint: Any) -> str:
    """An example of a value; nothing where the expectation is one."""
    origin, members = get_origin(hint), get_args(hint)
    if is_section(hint) or origin in (Literal, dict) or hint is bool:
        return ""
    if is_size(hint):
        return "384x512"
    if origin is tuple:
        if members[-1] is Ellipsis:
            return f"({_example(members[0])},)"
        return (
            "(0.9,0.95)" if members == (float, float) else f"({','.join(map(_example, members))})"
        )
    return SCALARS[hint][1]


def _some_key(section: type) -> str:
    """A key of a section, for an example."""
    if kinds_of(section) is not None and kind_of(section) is None:
        return "kind"
    return next((field.name for field in fields_of(section)), "KEY")
