"""Multiply-adds of the matrix products in a traced program."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def traced_products(function: Callable[..., Any], *args: Any) -> int:
    """Multiply-adds of all `dot_general`s, those of a loop as often as it runs; no convolutions."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Jaxpr) -> int:
    total = 0
    each: Any
    for each in jaxpr.eqns:
        if each.primitive.name == "dot_general":
            (contracted, _), _ = each.params["dimension_numbers"]
            sides = each.invars[0].aval.shape
            total += math.prod(each.outvars[0].aval.shape) * math.prod(sides[i] for i in contracted)
        times = each.params.get("length", 1)
        for value in each.params.values():
            inner = value.jaxpr if isinstance(value, ClosedJaxpr) else value
            if isinstance(inner, Jaxpr):
                total += times * _count(inner)
    return total
