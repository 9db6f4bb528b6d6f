"""Time and memory of `vit_jax.load_model`, compared with reading the file's arrays alone.

    python -m benchmarks.loading --model=ViT-B/16

Writes a file of random parameters in each layout. Then measures, each in new processes, how NumPy
or safetensors reads all arrays of the file, and how `load_model` loads it. Prints seconds (the best
of --repeats, with the file in the system's cache), the peak of additional memory, and ratios.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main(model: str, repeats: int) -> None:
    import jax
    import numpy as np

    import vit_jax
    from benchmarks.machine import versions
    from vit_jax.models.functional import model_params
    from vit_jax.weights.files import write_weights

    made = vit_jax.create_model(model)
    params = model_params(made)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    print(f"{model}: parameters of {size / 1e6:.0f} MB; {versions()}, numpy {np.__version__}")
    layouts = (("google", "w.npz"), ("timm", "w.safetensors"))
    with tempfile.TemporaryDirectory() as directory:
        for layout, file in layouts:
            path = Path(directory) / file
            write_weights(path, params, made.config, layout=layout)
            read_s, read_memory = _best("read", path, model, repeats)
            load_s, load_memory = _best("load", path, model, repeats)
            print(
                f"{layout}: reading {read_s:.2f} s, {read_memory / size:.2f} x the parameters; "
                f"load_model {load_s:.2f} s ({load_s / read_s:.2f} x), "
                f"{load_memory / size:.2f} x the parameters"
            )


def _best(work: str, path: Path, model: str, repeats: int) -> tuple[float, float]:
    """Least seconds and largest bytes of several processes that `read` or `load` a file."""
    results = []
    for _ in range(repeats):
        command = [sys.executable, "-m", "benchmarks.loading", f"--measure={work}"]
        command += [f"--model={model}", f"--file={path}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results.append([float(x) for x in output.split()])
    return min(seconds for seconds, _ in results), max(memory for _, memory in results)


def measure(work: str, file: str, model: str) -> None:
    """Prints the seconds of one reading, and the bytes of its peak of memory above the start."""
    import jax
    import jax.numpy as jnp
    import safetensors  # noqa: F401

    import vit_jax

    # Imports and the first call of the compiler are not measured.
    jnp.zeros(3).block_until_ready()
    vit_jax.load_model  # noqa: B018 (imports it)
    before, began = _status("VmRSS"), time.perf_counter()
    result = vit_jax.load_model(model, weights=file) if work == "load" else _read(file)
    jax.block_until_ready(jax.tree.leaves(result))
    print(time.perf_counter() - began, (_status("VmHWM") - before) * 1024)


def _read(file: str) -> list[Any]:
    import numpy as np
    from safetensors import safe_open

    if file.endswith(".npz"):
        with np.load(file) as archive:
            return [archive[name] for name in archive.files]
    tensors = safe_open(file, framework="numpy")
    return [tensors.get_tensor(name) for name in tensors.keys()]  # noqa: SIM118 (not a dict)


def _status(key: str) -> int:
    """A line of this process's status in Linux, in KiB."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B/16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", choices=("read", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.file, arguments.model)
    else:
        main(arguments.model, arguments.repeats)
