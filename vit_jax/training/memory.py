"""How much memory a run takes, on the host and on its devices."""

import contextlib
from collections.abc import Iterable

import jax
import psutil

_GIB = 2**30


def memory_in_use(devices: Iterable[jax.Device]) -> dict[str, float]:
    """Scalars under `memory/`, in GiB.

    Args:
      devices: those of this process.

    Returns:
      `host_gib`: what this process and its workers have in the host's memory now, pages that they
      share counted once for each. `device_peak_gib`: the most that one of the devices has held
      since the process began, where the platform tells; a CPU does not.
    """
    process = psutil.Process()
    resident = 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # A worker may have ended just now.
            resident += each.memory_info().rss
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in devices]
    scalars = {"memory/host_gib": resident / _GIB}
    if any(peaks):
        scalars["memory/device_peak_gib"] = max(peaks) / _GIB
    return scalars
