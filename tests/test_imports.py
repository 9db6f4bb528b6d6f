import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vit_jax"

# From the top of the house down; the modules that lie beside the rooms are the ground floor.
ROOMS = (
    *("commands", "experiments", "training", "evaluation", "inference", "weights"),
    *("runs", "analysis", "data", "models", "ground floor"),
)
# Entrances, which lie beside the rooms but lead into them.
ENTRANCES = ("vit_jax", "vit_jax.__main__")

HEAVY = {
    *("tensorflow", "tensorflow_datasets", "grain", "orbax", "array_record", "tensorboardX"),
    *("ml_collections", "PIL", "sklearn", "scipy", "matplotlib", "torch"),
}


def _run(code):
    # Hardly optimized, for compiling is what takes the time.
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _loaded(*names):
    """Top-level packages that importing these modules loads."""
    code = f"import json, sys, {', '.join(names)}\nprint(json.dumps(list(sys.modules)))"
    return {name.partition(".")[0] for name in json.loads(_run(code))}


def test_models_weights_and_the_step_need_jax_flax_optax_and_numpy_alone():
    loaded = _loaded(
        "vit_jax",
        "vit_jax.models",
        "vit_jax.weights.files",
        "vit_jax.weights.load",
        "vit_jax.training.step",
        "vit_jax.training.optimizer",
    )
    assert {"jax", "flax", "optax", "numpy"} <= loaded
    assert loaded & HEAVY <= _loaded("jax", "flax", "optax") & {"scipy"}


def test_data_workers_need_no_jax():
    loaded = _loaded("vit_jax.data.images.transforms", "vit_jax.data.sources.open")
    assert "numpy" in loaded
    assert not loaded & {"jax", "jaxlib", "flax", "optax", "orbax", "tensorflow"}


def test_tensorflow_is_never_loaded():
    assert not _loaded(*MODULES) & {"tensorflow", "torch"}


def test_the_top_level_is_light_and_makes_models():
    code = """
import sys, vit_jax
assert "jax" not in sys.modules and "numpy" not in sys.modules
assert "ViT-B/16" in vit_jax.list_models()
import jax, numpy as np
model = vit_jax.create_model("ViT-Ti/16", image_size=32, num_classes=7, depth=1, seed=1)
assert model(np.zeros((2, 32, 32, 3), np.float32)).shape == (2, 7)
"""
    _run(code)
    with pytest.raises(AssertionError, match="no attribute 'create_modle'"):
        _run("import vit_jax; vit_jax.create_modle")


# Rooms, read from the sources.


def _name(file):
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(file): ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}


def _imports(name):
    """The modules of this package that a module imports, at its top or within."""
    return _imported_by(name, ast.walk(MODULES[name]))


def _imported_by(name, nodes):
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return {module for module in found if module.partition(".")[0] == "vit_jax"}


def _room(name):
    part = name.split(".")[1] if "." in name else ""
    return part if part in ROOMS else "ground floor"


def test_all_modules_are_found():
    assert {"vit_jax.training.step", "vit_jax.parallel.mesh", *ENTRANCES} <= MODULES.keys()
    assert "vit_jax.models.config" in _imports("vit_jax.weights.load")
    assert "vit_jax.atomic" in _imports("vit_jax.runs.metrics")  # from vit_jax import atomic
    assert [_room(n) for n in ("vit_jax.losses", "vit_jax.data.sources.folder")] == [
        "ground floor",
        "data",
    ]


def test_every_import_is_of_a_module_that_exists():
    for name in MODULES:
        assert _imports(name) <= MODULES.keys() | {"vit_jax.configs"}, name


@pytest.mark.parametrize("name", sorted(MODULES.keys() - set(ENTRANCES)))
def test_a_room_imports_nothing_above_it(name):
    floor = ROOMS.index(_room(name))
    above = [m for m in _imports(name) - {"vit_jax"} if ROOMS.index(_room(m)) < floor]
    assert not above
    assert "vit_jax.__main__" not in _imports(name)


def test_modules_import_each_other_in_no_circle():
    # When they are loaded; what a function imports it finds whole.
    waiting = {name: _imported_by(name, tree.body) for name, tree in MODULES.items()}
    while free := [name for name, imports in waiting.items() if not imports & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting
