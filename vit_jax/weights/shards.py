"""A checkpoint in several `.safetensors` files, with an index that tells which array is where."""

from __future__ import annotations

import re
from pathlib import Path

from vit_jax.errors import UserError
from vit_jax.weights.archives import open_arrays
from vit_jax.weights.kinds import read_json_object
from vit_jax.weights.stored import StoredArray

INDEX_SUFFIX = ".index.json"
_FILE = re.compile(r"[\w.-]+\.safetensors")
_PART = re.compile(r"(.+)-\d{5}-of-\d{5}(\.safetensors)", re.ASCII)


def index_of_part(path: Path) -> Path | None:
    """The index of a checkpoint that a file is a part of; None if its name is no part's.

    Raises:
      UserError: the file is a part, and the index is missing.
    """
    part = _PART.fullmatch(path.name)
    if part is None:
        return None
    index = path.with_name(f"{part[1]}{part[2]}{INDEX_SUFFIX}")
    if not index.is_file():
        raise UserError(f"{path}: one part of a checkpoint, whose {index.name} is missing")
    return index


def is_part(name: str, index: str) -> bool:
    """Whether a file is named as a part of the checkpoint with this index."""
    part = _PART.fullmatch(name)
    return part is not None and f"{part[1]}{part[2]}{INDEX_SUFFIX}" == index


def open_shards(index: Path) -> dict[str, StoredArray]:
    """Opens the parts of a sharded checkpoint, as Hugging Face's `model.safetensors.index.json`.

    Raises:
      UserError: the index or a part is missing or damaged, or they do not belong together.
    """
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        raise UserError(f"{index}: not an index of .safetensors files; download it again")
    arrays: dict[str, StoredArray] = {}
    parts = sorted(set(places.values()))
    for part in parts:
        # No file but those beside the index.
        if not _FILE.fullmatch(part):
            raise UserError(f"{index}: names {part!r}, which is no .safetensors file beside it")
    for part in parts:
        found = open_arrays(index.with_name(part))
        listed = {name for name, place in places.items() if place == part}
        if different := sorted(listed ^ found.keys()):
            raise UserError(
                f"{index}: {part} does not hold what the index lists ({', '.join(different[:3])}); "
                "download both again"
            )
        arrays |= found
    return arrays
