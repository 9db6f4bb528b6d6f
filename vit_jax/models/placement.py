"""Where activations live. Models know no mesh, so they ask whoever knows the devices."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from jax import Array

F = TypeVar("F", bound=Callable[..., Array])


class Placement(Protocol):
    """Spreads a model's activations over the devices."""

    def constrain(self, x: Array) -> Array:
        """The same values: tokens [batch, T, width], or feature maps [batch, ...] of a ResNet."""
        ...

    def gather_sequence(self, x: Array) -> Array:
        """The same tokens, with all tokens of an example on one device, as a branch needs them."""
        ...

    def on_each_device(self, f: F) -> F:
        """`f`, run by every device on its own part of the arguments.

        Args:
          f: a function of arrays [batch, T, heads, size] whose result for one example and head
            depends on that example and head alone.
        """
        ...


class OneDevice:
    """The placement on a single device: it changes nothing."""

    def constrain(self, x: Array) -> Array:
        """Returns `x`."""
        return x

    def gather_sequence(self, x: Array) -> Array:
        """Returns `x`."""
        return x

    def on_each_device(self, f: F) -> F:
        """Returns `f`."""
        return f
