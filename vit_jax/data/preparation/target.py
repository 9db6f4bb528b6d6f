"""Where a data set is prepared to, and from what."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from etils import epath

from vit_jax.data.preparation.plan import Options, options_of
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.locks import try_lock
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket

# In the data set's directory: what it was made from; and what other starts need until it is whole.
PLAN, STATE = "prepared.json", ".preparing"
# TFDS takes a directory with this file for a data set.
_LAST = "features.json"


class Input(NamedTuple):
    """What a data set is prepared from.

    Attributes:
      splits: all with the same classes.
      root: what the names of records begin with, and is left out of them.
    """

    splits: Mapping[str, Source]
    root: str = ""


class Target(NamedTuple):
    """Where a data set is written to.

    Attributes:
      dataset: its name in TFDS.
      directory: on a disk or in a bucket.
    """

    dataset: str
    version: str
    directory: epath.Path

    @property
    def work(self) -> Path:
        """A directory on this machine's disk for indexes and unfinished shards."""
        if not is_bucket(self.directory):
            return Path(self.directory / STATE)
        place = hashlib.blake2b(os.fspath(self.directory).encode(), digest_size=8).hexdigest()
        return Path(tempfile.gettempdir(), f"vit_jax-prepare-{place}")

    def is_prepared(self, options: Options) -> bool:
        """Whether the data set is whole already.

        Raises:
          UserError: it is, with other options.
        """
        if not objects.exists(self.directory / _LAST):
            return False
        with contextlib.suppress(FileNotFoundError):  # TFDS itself has written it.
            before = options_of(objects.read_bytes(self.directory / PLAN), self.directory)
            if before == options:
                return True
            raise UserError(
                f"{self.directory} was prepared with {before}; choose another --data_dir, or "
                "remove it"
            )
        if options != Options():
            raise UserError(
                f"{self.directory} was prepared by TFDS, without --short_side and --exclude; "
                "choose another --data_dir, or remove it"
            )
        return True

    def clear(self) -> None:
        """Removes what only other starts would need, once the data set is whole."""
        if is_bucket(self.directory):
            for name in objects.list_files(self.directory / STATE):
                objects.delete(self.directory / STATE / name)
        shutil.rmtree(self.work)

    def clear_after_a_kill(self) -> None:
        """As `clear`, if the start that made the data set whole was killed before it did so.

        What cannot be removed stays: the data set can be read all the same.
        """
        if self.work.exists() or (
            is_bucket(self.directory) and objects.list_files(self.directory / STATE)
        ):
            with contextlib.suppress(UserError, OSError), only_one(self):
                self.clear()


@contextlib.contextmanager
def only_one(target: Target) -> Iterator[None]:
    """Makes the directory for work, and keeps others on this machine out of it.

    Raises:
      UserError: another process prepares the same, or the directory cannot be written.
    """
    try:
        target.work.mkdir(parents=True, exist_ok=True)
        file = open(target.work / "lock", "w")
    except OSError as error:
        raise UserError(f"{target.work}: {error.strerror}; choose another --data_dir") from error
    with file:
        if not try_lock(file):
            raise UserError(f"{target.directory}: another process is preparing it; wait for it")
        yield
