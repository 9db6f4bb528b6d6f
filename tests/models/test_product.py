"""Products with parameters have the values and gradients of `jax.lax.dot_general`."""

from typing import Any

import jax
import numpy as np
import pytest

from vit_jax.models.product import product

AXES: Any = {
    "dense": ((2, 3, 4), (4, 5), (((2,), (0,)), ((), ()))),
    "into heads": ((2, 3, 4), (4, 2, 5), (((2,), (0,)), ((), ()))),
    "out of heads": ((2, 3, 4, 2), (4, 2, 5), (((2, 3), (0, 1)), ((), ()))),
    "one row": ((4,), (4, 5), (((0,), (0,)), ((), ()))),
}


@pytest.mark.parametrize("name", list(AXES))
def test_values_and_gradients(name: str) -> None:
    of_x, of_kernel, axes = AXES[name]
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=of_x), rng.normal(size=of_kernel)

    def pulled(multiply: Any) -> Any:
        result, pull = jax.vjp(lambda x, kernel: multiply(x, kernel, axes), x, kernel)
        return result, *pull(np.cos(np.arange(result.size)).reshape(result.shape))

    with jax.enable_x64(True):
        found, expected = pulled(product), pulled(jax.lax.dot_general)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_other_axes_are_refused() -> None:
    with pytest.raises(AssertionError):
        product(np.ones((4, 3)), np.ones((4, 5)), (((0,), (0,)), ((), ())))
