"""Products of activations with parameters, whose gradients move as little as possible."""

import functools
from typing import Any

import jax
from jax import Array

from vit_jax.models.rematerialisation import product_result

# As `jax.lax.dot_general` takes them: contracted axes of both, then axes of a batch.
_Axes = tuple[tuple[Any, Any], tuple[Any, Any]]


def product(
    x: Array,
    kernel: Array,
    dimension_numbers: _Axes,
    precision: Any = None,
    preferred_element_type: Any = None,
    **options: Any,
) -> Array:
    """`jax.lax.dot_general` for a dense layer: the last axes of `x` meet the first of `kernel`.

    JAX's gradient of the kernel has the gradient of the result as its left operand. CPUs transpose
    the left one; here it is `x`, which is narrower before an MLP's hidden units, and the same for
    queries, keys and values.
    """
    del options
    (of_x, of_kernel), batch = dimension_numbers
    count = len(of_x)
    assert tuple(of_x) == tuple(range(x.ndim - count, x.ndim)), of_x
    assert tuple(of_kernel) == tuple(range(count)) and not any(batch), dimension_numbers
    return product_result(_product(x, kernel, count, precision, preferred_element_type))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _product(x: Array, kernel: Array, count: int, precision: Any, dtype: Any) -> Array:
    rows = x.ndim - count
    contracted = tuple(range(rows, x.ndim)), tuple(range(count))
    return jax.lax.dot_general(x, kernel, (contracted, ((), ())), precision, dtype)


def _forward(
    x: Array, kernel: Array, count: int, precision: Any, dtype: Any
) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, kernel, count, precision, dtype), (x, kernel)


def _backward(
    count: int, precision: Any, dtype: Any, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    del dtype
    x, kernel = kept
    rows = tuple(range(x.ndim - count))
    outputs = tuple(range(len(rows), gradient.ndim)), tuple(range(count, kernel.ndim))
    dot = functools.partial(jax.lax.dot_general, precision=precision)
    of_x = dot(gradient, kernel, (outputs, ((), ())), preferred_element_type=x.dtype)
    of_kernel = dot(x, gradient, ((rows, rows), ((), ())), preferred_element_type=kernel.dtype)
    return of_x, of_kernel


_product.defvjp(_forward, _backward)
