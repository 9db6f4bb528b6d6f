"""Checksums of arrays: each bit and each place counts."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.runs.checksums import summarize


def _checksums(*arrays: Any) -> Any:
    return np.asarray(summarize(list(arrays))[0])


@pytest.mark.parametrize("dtype", [np.float32, np.int32, jnp.bfloat16])
def test_any_bit_of_any_word_counts(dtype: Any) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(dtype)
    bits = 8 * x.dtype.itemsize
    seen = {tuple(_checksums(x)[0])}
    words = x.view(f"uint{bits}")
    for index in np.ndindex(x.shape):
        for bit in range(bits):
            flipped = words.copy()
            flipped[index] ^= words.dtype.type(1 << bit)
            seen.add(tuple(_checksums(flipped.view(x.dtype))[0]))
    assert len(seen) == 1 + 15 * bits


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_changes_that_could_cancel_count(dtype: Any) -> None:
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(dtype)
    words = x.view(f"uint{8 * x.dtype.itemsize}")
    changed = {
        "same": x,
        "negated": -x,
        "one row negated": x * np.array([[1], [-1], [1], [1]], dtype),
        "all lowest bits": (words ^ words.dtype.type(1)).view(x.dtype),
        "reversed": x[::-1, ::-1],
        "rows rolled": np.roll(x, 1, axis=0),
        "columns rolled": np.roll(x, 1, axis=1),
        "zeros": np.zeros_like(x),
        "negative zeros": -np.zeros_like(x),
    }
    for i in range(1, x.size):
        swapped = x.copy().reshape(-1)
        swapped[[0, i]] = swapped[[i, 0]]
        changed[f"0 and {i} swapped"] = swapped.reshape(x.shape)
    checksums = _checksums(*changed.values())
    assert len({tuple(c) for c in checksums.tolist()}) == len(changed)
    # Each sum tells them apart on its own.
    assert [len(set(c)) for c in checksums.T.tolist()] == [len(changed)] * 2
