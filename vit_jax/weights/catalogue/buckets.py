"""Weights in a bucket, copied once into the cache of downloads, from where arrays are read.

Each version of an object has a folder of its own, which holds the weights and what describes them
under the names that they have in the bucket. The weights come last and appear whole.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path

from vit_jax import atomic, locks
from vit_jax.errors import UserError
from vit_jax.storage import objects
from vit_jax.user_cache import user_cache
from vit_jax.weights.files import FOLDER_FILES, descriptions_of, weights_named
from vit_jax.weights.kinds import read_json_object
from vit_jax.weights.shards import is_part

_log = logging.getLogger(__name__)

_FILE_TYPES = (".npz", ".safetensors", ".index.json")
# Seconds between lines of progress.
_EVERY = 10.0


def fetch_from_bucket(address: str) -> Path:
    """The local copy of weights in a bucket; downloaded unless this version is in the cache.

    Args:
      address: `gs://…` or `s3://…` of a weight file, or of a directory with one, such as a run's.

    Raises:
      UserError: there is none, the bucket cannot be used, the file is replaced again and again, or
        the cache cannot be written.
    """
    address = address.rstrip("/")
    if not address.endswith(_FILE_TYPES):
        address = _in_directory(address)
    directory, _, name = address.rpartition("/")
    beside = [path.name for path in descriptions_of(weights_named(Path(name)))]
    versions = {each: objects.version(f"{directory}/{each}") for each in (*beside, name)}
    if versions[name] is None:
        raise UserError(f"{address}: no such object; list the folder by its bucket's own tool")
    digest = hashlib.blake2b(repr((address, versions)).encode(), digest_size=16).hexdigest()
    folder = user_cache() / "buckets" / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "wb") as lock:
            locks.lock(lock)  # A second process finds what the first has downloaded.
            if (folder / name).is_file():
                return folder / name
            for each in beside:
                if versions[each] is not None:
                    path = f"{directory}/{each}"
                    atomic.write_bytes(folder / each, objects.read_bytes(path))
                    if objects.version(path) != versions[each]:
                        raise _replaced(path)
            if name.endswith(".json"):
                index = objects.read_bytes(address)
                atomic.write_bytes(folder / "index.part", index)
                for part in _parts(folder / "index.part", name):
                    path = f"{directory}/{part}"
                    _copy(path, folder / part, objects.version(path))
                os.replace(folder / "index.part", folder / name)
            else:
                _copy(address, folder / name, versions[name])
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{address}: {error.filename} is missing; copy it again") from error
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); make room, or set "
            "VIT_JAX_CACHE to a directory that can be written"
        ) from error
    return folder / name


def _in_directory(address: str) -> str:
    names = objects.list_names(address)
    for name in FOLDER_FILES:
        if name in names:
            return f"{address}/{name}"
    if files := [name for name in names if name.endswith(_FILE_TYPES)]:
        raise UserError(f"{address}: name one of its files, such as {address}/{files[0]}")
    if names:
        raise UserError(
            f"{address}: a directory without {FOLDER_FILES[0]} or {FOLDER_FILES[1]}; name a weight "
            "file, or, if it is a run that has not ended, finish it with the same train command"
        )
    raise UserError(f"{address}: there is nothing of this name in the bucket; check it")


def _parts(index: Path, name: str) -> list[str]:
    places = read_json_object(index).get("weight_map")
    named = set(map(str, places.values())) if isinstance(places, dict) else set()
    return sorted(file for file in named if is_part(file, name))


def _copy(address: str, file: Path, version: str | None) -> None:
    """Copies an object in pieces to a file that appears when it is whole."""
    if file.is_file():
        return
    size = objects.size(address)
    _log.info("%s: downloading %.1f MiB to %s", address, size / 2**20, file.parent)
    part, done, told = file.with_name(f"{file.name}.part"), 0, time.monotonic()
    with open(part, "wb") as written:
        for piece in objects.read_pieces(address):
            written.write(piece)
            done += len(piece)
            if time.monotonic() > told + _EVERY:
                told = time.monotonic()
                _log.info("%s: %d %%", address, 100 * done // size)
        written.flush()
        os.fsync(written.fileno())
    if done != size or objects.version(address) != version:
        part.unlink()
        raise _replaced(address)
    os.replace(part, file)


def _replaced(address: str) -> UserError:
    return UserError(f"{address}: it was replaced while it was read; use the same command again")
