"""Where activations live: asked of whoever knows the devices, for models know no mesh."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from jax import Array

F = TypeVar("F", bound=Callable[..., Array])


class Placement(Protocol):
    """Spreads a model's activations over the devices."""

    def constrain(self, x: Array) -> Array:
        """The same values: tokens [batch, T, width], or feature maps [batch, ...] of a ResNet."""
        ...

    def whole(self, x: Array) -> Array:
        """The same tokens, all of an example on one device: what a branch takes and gives."""
        ...

    def on_each_device(self, f: F) -> F:
        """`f` run by every device on its own part of its arguments.

        Args:
          f: of arrays [batch, T, heads, size], each with the same result for an example and a head
            whatever the others are.
        """
        ...


class OneDevice:
    """The placement where there is nothing to spread."""

    def constrain(self, x: Array) -> Array:
        """As it is."""
        return x

    def whole(self, x: Array) -> Array:
        """As it is."""
        return x

    def on_each_device(self, f: F) -> F:
        """As it is."""
        return f
