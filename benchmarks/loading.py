"""Time and memory of loading a model from a file, beside reading the file's arrays alone.

    python -m benchmarks.loading --model=ViT-B/16

Writes a file of random parameters in each layout, then measures in new processes: NumPy's or
safetensors' own reading of all arrays, and `vit_jax.load_model`. Prints seconds (the best of
--repeats, the file in the system's cache) and the peak of additional memory, both as ratios too.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

# What a process does before its memory and time are read the first time: imports, and the
# compiler's first call.
_PRELUDE = """
import sys, time
import jax, jax.numpy as jnp, numpy as np
from safetensors import safe_open
import vit_jax
vit_jax.load_model, jnp.zeros(3).block_until_ready()
path, name = sys.argv[1:]

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line)

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if "VmRSS" in line)
"""
_READ = """
def work():
    if path.endswith(".npz"):
        with np.load(path) as file:
            return [file[name] for name in file.files]
    file = safe_open(path, framework="numpy")
    return [file.get_tensor(name) for name in file.keys()]
"""
_LOAD = """
def work():
    return vit_jax.load_model(name, weights=path)
"""
_MEASURE = """
before, began = resident(), time.perf_counter()
result = work()
jax.block_until_ready(jax.tree.leaves(result))
print(time.perf_counter() - began, (peak() - before) * 1024)
"""


def main(model: str, repeats: int) -> None:
    import jax
    import numpy as np

    import vit_jax
    from vit_jax.models.functional import model_params
    from vit_jax.weights.files import write_weights

    made = vit_jax.create_model(model)
    params = model_params(made)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    print(
        f"{model}: parameters of {size / 1e6:.0f} MB; jax {jax.__version__}, numpy {np.__version__}"
    )
    layouts = (("google", "w.npz"), ("timm", "w.safetensors"))
    with tempfile.TemporaryDirectory() as directory:
        for layout, file in layouts:
            path = Path(directory) / file
            write_weights(path, params, made.config, layout=layout)
            read_s, read_memory = _best(_READ, path, model, repeats)
            load_s, load_memory = _best(_LOAD, path, model, repeats)
            print(
                f"{layout}: reading {read_s:.2f} s, {read_memory / size:.2f} x the parameters; "
                f"load_model {load_s:.2f} s ({load_s / read_s:.2f} x), "
                f"{load_memory / size:.2f} x the parameters"
            )


def _best(work: str, path: Path, model: str, repeats: int) -> tuple[float, float]:
    """Least seconds and largest bytes of several processes."""
    results = []
    for _ in range(repeats):
        command = [sys.executable, "-c", _PRELUDE + work + _MEASURE, str(path), model]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results.append([float(x) for x in output.split()])
    return min(seconds for seconds, _ in results), max(memory for _, memory in results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B/16")
    parser.add_argument("--repeats", type=int, default=3)
    main(**vars(parser.parse_args()))
