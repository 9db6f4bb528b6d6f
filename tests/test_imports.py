"""Who imports what: which packages a module needs, and that the rooms' arrows go down only."""

import ast
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.real_processes import run_program

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


class Imported(NamedTuple):
    """What importing some modules loads, and which files asked for TensorFlow or PyTorch."""

    loaded: frozenset[str]
    asked: frozenset[str]


def _import(*modules: str) -> Imported:
    printed = run_program("tests.programs.loaded", *modules)
    return Imported(**{name: frozenset(values) for name, values in json.loads(printed).items()})


def test_models_weights_and_the_step_need_jax_flax_optax_and_numpy_alone() -> None:
    loaded = _import(
        "vit_jax",
        "vit_jax.models",
        "vit_jax.weights.files",
        "vit_jax.weights.load",
        "vit_jax.training.step",
        "vit_jax.training.optimizer",
    ).loaded
    assert {"jax", "flax", "optax", "numpy"} <= loaded
    assert loaded & HEAVY <= _import("jax", "flax", "optax").loaded & {"scipy"}


def test_data_workers_need_no_jax() -> None:
    loaded = _import("vit_jax.data.images.transforms", "vit_jax.data.sources.open").loaded
    assert "numpy" in loaded
    assert not loaded & {"jax", "jaxlib", "flax", "optax", "orbax", "tensorflow"}


def test_training_asks_for_nothing_heavy_that_it_does_not_use(tmp_path: Path) -> None:
    printed = run_program("tests.programs.heavy_imports", str(tmp_path / "run"))
    assert printed.splitlines()[-1].split() == ["asked:"]


def test_no_module_asks_for_tensorflow_or_pytorch() -> None:
    imported = _import(*MODULES)
    # Others may ask: tensorboardX takes what PyTorch offers, where it is installed.
    assert not [file for file in imported.asked if Path(file).is_relative_to(PACKAGE)]
    assert not imported.loaded & {"tensorflow", "torch"}


def test_the_top_level_is_light_and_makes_models() -> None:
    run_program("tests.programs.light_top_level")


# Rooms, read from the sources.


def _name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(file): ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}


def _imports(name: str) -> set[str]:
    """The modules of this package that a module imports, for types and in functions too."""
    return _imported_by(name, ast.walk(MODULES[name]))


def _imported_by(name: str, nodes: Iterable[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{name}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return {module for module in found if module.partition(".")[0] == "vit_jax"}


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run, or are read for types, when the module is loaded."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _outside_functions(child)


def _room(name: str) -> str:
    part = name.split(".")[1] if "." in name else ""
    return part if part in ROOMS else "ground floor"


def test_all_modules_are_found() -> None:
    assert {"vit_jax.training.step", "vit_jax.parallel.mesh", *ENTRANCES} <= MODULES.keys()
    assert "vit_jax.models.config" in _imports("vit_jax.weights.load")
    assert "vit_jax.atomic" in _imports("vit_jax.storage.objects")  # from vit_jax import atomic
    assert [_room(n) for n in ("vit_jax.losses", "vit_jax.data.sources.folder")] == [
        "ground floor",
        "data",
    ]
    # No room is missing, and only these lie beside the modules of the ground floor.
    directories = {file.parent.relative_to(PACKAGE).parts[0] for file in PACKAGE.glob("*/*.py")}
    assert directories == {*ROOMS, "parallel", "storage"} - {"ground floor"}


def test_every_import_is_of_a_module_that_exists() -> None:
    for name in MODULES:
        assert _imports(name) <= MODULES.keys() | {"vit_jax.configs"}, name


@pytest.mark.parametrize("name", sorted(MODULES.keys() - set(ENTRANCES)))
def test_a_room_imports_nothing_above_it(name: str) -> None:
    floor = ROOMS.index(_room(name))
    above = [m for m in _imports(name) if ROOMS.index(_room(m)) < floor or m in ENTRANCES]
    assert not above


def test_modules_import_each_other_in_no_circle() -> None:
    # Imports for types count. A function finds whole what it imports when it runs.
    waiting = {name: _imported_by(name, _outside_functions(MODULES[name])) for name in MODULES}
    while free := [name for name, imports in waiting.items() if not imports & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting
