"""Prints how many bytes of memory loading a weight file takes at its peak.

    python -m tests.programs.measure_loading SMALL LARGE

What loading takes once, whatever the model's size, is taken with the small file before.
"""

import sys

import vit_jax


def memory(kind: str) -> int:
    """Bytes of this process, by the name of a line in Linux's /proc/self/status."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


if __name__ == "__main__":
    small, large = sys.argv[1:]
    vit_jax.load_model(weights=small)
    before = memory("VmRSS")
    model = vit_jax.load_model(weights=large)
    print(memory("VmHWM") - before)
