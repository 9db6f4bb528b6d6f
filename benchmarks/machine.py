"""What a figure was measured on, for the heading above it."""

import platform
from collections.abc import Sequence

import jax


def versions() -> str:
    """As in `jax 0.10.2, Python 3.11.2`."""
    return f"jax {jax.__version__}, Python {platform.python_version()}"


def machine(devices: Sequence[jax.Device] | None = None) -> str:
    """As in `1 x NVIDIA H100 80GB HBM3, jax 0.10.2, Python 3.11.2`.

    Args:
      devices: None are those of this process.
    """
    devices = jax.devices() if devices is None else devices
    return f"{len(devices)} x {devices[0].device_kind}, {versions()}"
