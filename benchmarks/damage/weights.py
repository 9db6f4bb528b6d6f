"""Weight files with their descriptions, opened and read after damage to one of them.

A weight file that another one has replaced must give that one's arrays. A description is text
without a checksum: where a damaged one is still valid, with the same keys, what it states is what
counts. Bits of `.safetensors` files of other programs are flipped in the header alone, since the
format has no checksum for arrays.
"""

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.damage.damages import Case, Donors, apply, cases_of
from benchmarks.damage.outcomes import End, Ending, call, fault_of

ALLOWED = (End.EQUAL, End.STATED, End.ASSUMED, End.REFUSED)

_HUB = ("model.safetensors", "config.json")
# The files of each set; `Loaded` is what the first one is opened for.
_SETS = {
    "google": ("weights.npz", "weights.json"),
    "google without description": ("weights.npz",),
    "own safetensors": ("w.safetensors", "w.json"),
    "timm": _HUB,
    "huggingface": (*_HUB, "preprocessor_config.json"),
    "sharded": (
        *("model.safetensors.index.json", "model-00001-of-00002.safetensors"),
        *("model-00002-of-00002.safetensors", "config.json"),
    ),
    "pickled": ("w.pth",),
}
_FLIPS = 4


class _Loaded(NamedTuple):
    """What a set of files is read as."""

    arrays: dict[str, Any]
    model: dict[str, Any]
    class_names: tuple[str, ...] | None
    assumed: dict[str, str]


def prepare(root: Path) -> None:
    """Writes each set for a run, an earlier step of it, and another run with other classes."""
    import jax

    from vit_jax.models.config import ModelConfig
    from vit_jax.models.functional import init_params
    from vit_jax.weights.files import write_weights

    model = ModelConfig(
        "ViT-Ti/2", image_size=4, depth=1, width=8, mlp_dim=8, num_heads=2, num_classes=3
    ).completed()
    classes = {
        "run": ("cat", "dog", "ship"),
        "step": ("cat", "dog", "ship"),
        "other": ("x", "y", "z"),
    }
    for seed, (version, names) in enumerate(classes.items()):
        params = jax.tree.map(np.asarray, init_params(model, seed))
        # Biases of other numbers than zero too, so that no two versions have an equal array.
        params = jax.tree.map(lambda x, s=seed: x + np.float32(0.01 * (s + 1)), params)
        for name, files in _SETS.items():
            folder = root / version / name
            folder.mkdir(parents=True)
            if name == "pickled":
                (folder / files[0]).write_bytes(pickle.dumps({"head.bias": [0.0, 1.0, 2.0]}))
                continue
            layout = {"timm": "timm", "own safetensors": "timm"}.get(name, "huggingface")
            layout = "google" if name.startswith("google") else layout
            path, extra = folder / (_HUB[0] if name == "sharded" else files[0]), {"step": seed}
            write_weights(path, params, model, layout=layout, class_names=names, extra=extra)
            if name == "sharded":
                _shard(folder)
            for path in folder.iterdir():
                if path.name not in files:
                    path.unlink()


def _shard(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, shards = sorted(arrays), _SETS["sharded"][1:3]
    where = {name: shards[i % 2] for i, name in enumerate(names)}
    for shard in shards:
        part = {name: arrays[name] for name in names if where[name] == shard}
        save_file(part, folder / shard, metadata={"format": "pt"})
    size = sum(array.nbytes for array in arrays.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / _SETS["sharded"][0]).write_text(json.dumps(index, indent=2))


def cases(root: Path) -> list[Case]:
    """Each file of each set."""
    listed = []
    for name, files in _SETS.items():
        if name != "pickled":
            listed.append(Case("weights", f"{name}/{files[0]}", "none", group="(undamaged)"))
        for file in files:
            case = Case("weights", f"{name}/{file}", "none", group=f"{name}: {file}")
            listed += cases_of(case, _donors(root, case), flips=_FLIPS)
    return listed


def run(case: Case, root: Path, scratch: Path) -> Ending:
    """Damages a file of a copied set, and reads all arrays."""
    name, _, file = case.file.partition("/")
    folder = scratch / name
    shutil.copytree(root / "run" / name, folder)
    if case.damage == "one bit flipped" and _has_no_checksum(case):
        _flip_in_header(case, folder / file)
    else:
        apply(case, folder / file, _donors(root, case))
    output = call(lambda: _load(_target(folder)))
    if fault := fault_of(output):
        return fault
    if output.error is not None:
        return Ending(End.REFUSED, output.error)
    if name == "pickled":
        return Ending(End.WRONG, "a pickle was read")
    assert isinstance(output.value, _Loaded)
    return _judge(case, output.value, root, folder / file)


def _judge(case: Case, loaded: _Loaded, root: Path, damaged: Path) -> Ending:
    name, _, file = case.file.partition("/")

    expected = _load(_target(root / "run" / name))
    is_description = file.endswith("json") and "index" not in file
    other = {"that of another step": "step", "that of another run": "other"}.get(case.damage)
    if other is not None and not is_description:
        arrays = _load(_target(root / other / name)).arrays
        expected = expected._replace(arrays=arrays)
    if bad := [
        key for key, array in expected.arrays.items() if not _same(loaded.arrays, key, array)
    ]:
        return Ending(End.WRONG, f"other values of {', '.join(bad[:3])}")
    if (loaded.model, loaded.class_names) == (expected.model, expected.class_names):
        return Ending(End.EQUAL)
    if not is_description:
        return Ending(End.WRONG, f"another model or other classes: {loaded.class_names}")
    if case.damage == "deleted":
        return Ending(End.ASSUMED if loaded.assumed else End.WRONG, ", ".join(loaded.assumed))
    if other is not None or _keys(damaged) == _keys(root / "run" / case.file):
        return Ending(End.STATED)
    return Ending(End.WRONG, f"read as {loaded.model}, {loaded.class_names}")


def _load(path: Path) -> _Loaded:
    from flax import traverse_util

    from vit_jax.schema import to_dict
    from vit_jax.weights.catalogue.names import resolve
    from vit_jax.weights.files import open_weights

    opened = open_weights(resolve(path))
    flat = traverse_util.flatten_dict(opened.params, sep="/")
    arrays = {key: np.asarray(array) for key, array in flat.items()}
    return _Loaded(arrays, to_dict(opened.model), opened.class_names, opened.assumed)


def _same(arrays: dict[str, Any], key: str, expected: Any) -> bool:
    """Whether an array is there; how many heads it is split into is the model's affair."""
    found = arrays.get(key)
    if found is None or found.dtype != expected.dtype:
        return False
    return np.array_equal(np.ravel(found), np.ravel(expected))


def _target(folder: Path) -> Path:
    """What a user names: the folder of a hub, otherwise the weight file."""
    first = _SETS[folder.name][0]
    return folder if first.startswith("model") else folder / first


def _donors(root: Path, case: Case) -> Donors:
    if case.file.startswith("sharded/model"):
        return Donors()  # Shards of two runs together are the weights of none.
    return Donors(root / "step" / case.file, root / "other" / case.file)


def _has_no_checksum(case: Case) -> bool:
    return case.file.endswith(".safetensors") and not case.file.startswith("own")


def _flip_in_header(case: Case, path: Path) -> None:
    """Flips a bit of the header's length or of the header."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:end])
    apply(case, path, Donors())
    with open(path, "ab") as file:
        file.write(data[end:])


def _keys(path: Path) -> list[str] | None:
    """The paths of all values in a file of JSON; None if it is none."""

    def walk(value: Any, at: str) -> Iterator[str]:
        children: Any = value.items() if isinstance(value, dict) else ()
        children = enumerate(value) if isinstance(value, list) else children
        yield at
        for key, child in children:
            yield from walk(child, f"{at}/{key}")

    try:
        return sorted(walk(json.loads(path.read_bytes()), ""))
    except (OSError, ValueError):
        return None
