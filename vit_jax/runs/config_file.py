"""`config.json` of a run: the config, and what else must be known of the run on each start."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from vit_jax.errors import StorageError, UserError
from vit_jax.runs.saved import upgrade_config
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path

# Keys in `config.json` besides the config's own: what identifies fixed arrays, and the run; the
# steps that it was extended to; the differences of its data that were accepted; and the digest of
# its final weights.
FIXED_DIGEST, RUN_ID = "fixed_digest", "run_id"
EXTENDED_TO, CHANGED_DATA = "extended_to", "changed_data"
WEIGHTS_DIGEST = "weights_digest"
_EXTRAS = (FIXED_DIGEST, RUN_ID, EXTENDED_TO, CHANGED_DATA, WEIGHTS_DIGEST)


class StoredConfig(NamedTuple):
    """What `config.json` holds.

    Attributes:
      config: nested, as the first start wrote it.
      extras: the keys besides: `FIXED_DIGEST` and so on.
    """

    config: dict[str, Any]
    extras: dict[str, Any]


def is_run(path: str | os.PathLike[str]) -> bool:
    """Whether the directory is that of a run; a hub's directory has a `config.json` too."""
    return all(objects.exists(as_path(path) / name) for name in ("config.json", "lock"))


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The config of the run in directory `path`, as a nested dict with today's keys.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    return upgrade_config(read_stored(path).config)


def read_extension(path: str | os.PathLike[str]) -> int | None:
    """The steps that the run in directory `path` was extended to; None if it was not.

    Raises:
      UserError: there is no run, or its config cannot be read.
    """
    steps: int | None = read_stored(path).extras.get(EXTENDED_TO)
    return steps


def read_stored(path: str | os.PathLike[str]) -> StoredConfig:
    """The whole of `config.json` in directory `path`.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    file = as_path(path) / "config.json"
    try:
        config = json.loads(objects.read_small(file))
    except StorageError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is not the directory of a run: it has no config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}); restore it or remove it") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is not a JSON object; restore it or remove it")
    return StoredConfig(config, {key: config.pop(key) for key in _EXTRAS if key in config})


def write_stored(path: str | os.PathLike[str], stored: StoredConfig) -> None:
    """Writes `config.json` in directory `path`, whole or not at all."""
    write_json(as_path(path) / "config.json", stored.config | stored.extras)


def digest_of(config: Mapping[str, Any]) -> str:
    """A digest of a nested config, in hexadecimal."""
    text = json.dumps(config, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Writes a file of indented JSON, whole or not at all."""
    objects.write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())
