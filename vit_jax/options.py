"""The options of config sections as data: key, type, default and description of each field."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from vit_jax.hints import fields_of, is_section, kind_of, kinds_of, members_of, type_words


class Option(NamedTuple):
    """One key of a section; type and default as they are typed on the command line."""

    key: str
    type: str
    default: str
    description: str


class Section(NamedTuple):
    """A section by its dotted name, such as `config.data`; `kind` is set if it comes in kinds."""

    name: str
    kind: str | None
    description: str
    options: tuple[Option, ...]


def list_sections(section: type, name: str = "config") -> Iterator[Section]:
    """Lists a dataclass and the sections in it, from the outside in.

    Args:
      section: a dataclass, or a base class with `kinds`.
      name: its dotted name. An entry of a dict of sections is called NAME.
    """
    kinds = kinds_of(section)
    if kinds is not None and kind_of(section) is None:
        for kind in kinds.names():
            yield from list_sections(kinds[kind], name)
        return
    hints, docs = get_type_hints(section), field_docs(section)
    options, inner = [], []
    for field in fields_of(section):
        found = list(_sections_in(hints[field.name]))
        is_dict = get_origin(hints[field.name]) is dict
        inner += [(f"{name}.{field.name}{'.NAME' if is_dict else ''}", each) for each in found]
        if not found or docs.get(field.name):
            words = docs.get(field.name, "")
            options.append(
                Option(field.name, type_words(hints[field.name]), _default(field), words)
            )
    yield Section(name, kind_of(section), _purpose(section), tuple(options))
    for inner_name, each in inner:
        yield from list_sections(each, inner_name)


def field_docs(section: type) -> dict[str, str]:
    """Returns the description of each field of a dataclass, in the fields' order.

    A field's description is the string literal that follows it in the class body. Fields without
    one are left out. Fields of base classes are included.
    """
    docs: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        docs |= _docs_in_body(cls)
    return {field.name: docs[field.name] for field in fields_of(section) if field.name in docs}


def _docs_in_body(cls: type) -> dict[str, str]:
    if not dataclasses.is_dataclass(cls):
        return {}
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # made by make_dataclass, or without source
        return {}
    docs = {}
    assert isinstance(tree.body[0], ast.ClassDef)
    body = tree.body[0].body
    for field, text in itertools.pairwise(body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                docs[name] = inspect.cleandoc(words)
    return docs


def _sections_in(hint: Any) -> Iterator[type]:
    """The sections that a field holds, alone, in a union or as the values of a dict."""
    for member in members_of(hint):
        for each in (member, *get_args(member)):
            if is_section(each):
                yield each


def _purpose(section: type) -> str:
    doc = inspect.getdoc(section) or ""
    # A dataclass without a docstring has its signature as one.
    return "" if doc.startswith(f"{section.__name__}(") else doc


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
        return "" if dataclasses.is_dataclass(value) or value == {} else _typed(value)
    return "required" if field.default is dataclasses.MISSING else _typed(field.default)


def _typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and [type(item) for item in value] == [int, int]:
        return "x".join(map(str, value))
    if isinstance(value, tuple):
        return f"({','.join(map(_typed, value))}{',' * (len(value) == 1)})"
    if dataclasses.is_dataclass(value):
        return ""
    return repr(value) if isinstance(value, str) and re.fullmatch("[0-9.]*", value) else str(value)
