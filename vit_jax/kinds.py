"""Config sections that come in kinds: a registry of dataclasses by name.

A base class holds the registry, and each kind is a dataclass that is registered with it:

    class ObjectiveConfig:
        kinds: ClassVar[Kinds["ObjectiveConfig"]] = Kinds("objective", default="supervised")
        kind: ClassVar[str]  # set by register

    @ObjectiveConfig.kinds.register("distillation")
    @dataclass(frozen=True)
    class DistillationConfig(ObjectiveConfig):
        teacher: str

`schema.build` reads the key `kind` of such a section and builds the dataclass of that name. An
instance knows its name too, as `section.kind`.
"""

import sys
from collections.abc import Callable
from typing import Generic, TypeVar

from vit_jax.errors import UserError
from vit_jax.spelling import nearest

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Kinds(Generic[T]):
    """The dataclasses of one kind of section, by name.

    Attributes:
      what: what a kind is called in messages, such as "evaluator".
      default: the kind of a section that does not name one; None makes the key `kind` required.
    """

    def __init__(self, what: str, default: str | None = None):
        self.what = what
        self.default = default
        self._classes: dict[str, type[T]] = {}

    def register(self, kind: str) -> Callable[[C], C]:
        """Returns a class decorator that registers a dataclass under this name.

        A class that is defined again, as by a config file that is read twice, replaces the first.

        Raises:
          ValueError: another class has this name.
        """

        def add(cls: C) -> C:
            known = self._classes.get(kind)
            if known is not None and not _is_same_definition(known, cls):
                raise ValueError(
                    f"{self.what} {kind!r} is already {known.__module__}.{known.__qualname__}; "
                    "register the class under another name"
                )
            cls.kind = kind  # type: ignore[attr-defined]
            self._classes[kind] = cls
            return cls

        return add

    def __getitem__(self, kind: str) -> type[T]:
        """Returns the dataclass that is registered under a name.

        Raises:
          UserError: none is.
        """
        if kind not in self._classes:
            raise UserError(f"no {self.what} {kind!r}{nearest(kind, self._classes)}")
        return self._classes[kind]

    def names(self) -> tuple[str, ...]:
        """Returns the registered names, in the order of their registration."""
        return tuple(self._classes)


def _is_same_definition(one: type, other: type) -> bool:
    """Whether two classes come from the same lines of the same file."""
    if one is other:
        return True
    if one.__qualname__ != other.__qualname__:
        return False
    return one.__module__ == other.__module__ or _file(one) == _file(other) is not None


def _file(cls: type) -> str | None:
    """The file that defines a class; a config file is a new module each time it is read."""
    return getattr(sys.modules.get(cls.__module__), "__file__", None)
