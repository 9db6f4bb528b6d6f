"""The directory of one run: its config, its versions, and the lock that keeps others out."""

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from etils import epath

from vit_jax.errors import StorageError, UserError
from vit_jax.locks import try_lock
from vit_jax.parallel.processes import launched_apart
from vit_jax.runs.changes import changes
from vit_jax.runs.claim import Claim
from vit_jax.runs.config_file import (
    CHANGED_DATA,
    EXTENDED_TO,
    FIXED_DIGEST,
    RUN_ID,
    WEIGHTS_DIGEST,
    StoredConfig,
    digest_of,
    is_run,
    read_stored,
    write_stored,
)
from vit_jax.runs.saved import upgrade_config
from vit_jax.runs.versions import warn_of_other_version, write_versions
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path, is_bucket

# What Orbax adds to a checkpoint in a bucket once it is complete.
COMMITTED = "/commit_success.txt"


class RunDirectory:
    """Claims a directory for one run, for as long as the object is open.

    On a disk a lock does that, in a bucket a `Claim`.

    The first start writes `config.json`. Each further start must bring the same config and leaves
    the file as it is. `versions.json` shows what the latest start ran on. If another version of
    this package wrote the run, a warning says which.

    Args:
      config: nested, what JSON can hold.
      writer: whether this process writes; it must be true on process 0 only.
      digest: identifies arrays that belong to the run but are stored elsewhere, such as a teacher's
        weights; None if there are none.
      upgrade: fills in the defaults of keys that are new since the config was written; raises
        `UserError` if it cannot.

    Attributes:
      identity: what tells this run from others, for its checkpoints; None if this is not the
        writer.

    Raises:
      UserError: the directory cannot be written, another run uses it, or it holds a run of another
        config or digest.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        writer: bool,
        digest: str | None = None,
        upgrade: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config,
    ):
        if not str(path):
            raise UserError("--workdir is empty; name a directory for the run")
        if "://" in str(path) and not is_bucket(path):
            raise UserError(
                f"{path}: a work directory must be a local or mounted path, or "
                "gs://BUCKET/NAME or s3://BUCKET/NAME"
            )
        self.path = as_path(path)
        self._lock: int | None = None
        self._claim: Claim | None = None
        self.identity: dict[str, str] | None = None
        objects.require_library(self.path)
        if not writer:
            return
        try:
            self._refuse_foreign_files()
            if is_bucket(self.path):
                self._claim = Claim(str(self.path))
            else:
                self._lock_directory()
            self._open(config, digest, upgrade)
        except StorageError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise UserError(
                f"cannot write to the work directory {self.path} ({error.strerror}); free "
                "space, change its permissions, or choose another with --workdir"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def checkpoints(self) -> epath.Path:
        """The directory of checkpoints."""
        return self.path / "checkpoints"

    @property
    def profile(self) -> epath.Path:
        """The directory of traces of steps."""
        return self.path / "profile"

    @property
    def weights(self) -> epath.Path:
        """The file of final weights; it exists when the run has ended."""
        return self.path / "weights.npz"

    @property
    def data_list(self) -> epath.Path:
        """The list of the data's files."""
        return self.path / "data.gz"

    def extend(self, before: int, to: int) -> None:
        """Notes that the run is extended; keeps the final weights that it had, under other names.

        Args:
          before: the steps that it had.
        """
        for file in (self.weights, self.weights.with_suffix(".json")):
            with contextlib.suppress(FileNotFoundError):
                objects.move(file, file.with_name(f"{file.stem}-{before}{file.suffix}"))
        self._add(EXTENDED_TO, to)

    def note_changed_data(self, step: int, found: int, first: Sequence[str]) -> None:
        """Notes that the data is another one after a step, and that this was accepted."""
        noted = self._stored.extras.get(CHANGED_DATA, [])
        self._add(CHANGED_DATA, [*noted, {"after_step": step, "files": found, "first": first}])

    def note_weights(self) -> None:
        """Notes the digest of the final weights, on the writer."""
        if self.identity is not None:
            self._add(WEIGHTS_DIGEST, self._digest_of_weights())

    def weights_are_whole(self) -> bool:
        """Whether the final weights are those that were noted, if any were, on the writer.

        Raises:
          OSError: they cannot be read.
        """
        noted = None if self.identity is None else self._stored.extras.get(WEIGHTS_DIGEST)
        return noted is None or noted == self._digest_of_weights()

    def _digest_of_weights(self) -> str:
        digest = hashlib.sha256()
        for file in (self.weights, self.weights.with_suffix(".json")):
            for piece in objects.read_pieces(file):
                digest.update(piece)
        return digest.hexdigest()

    def _add(self, key: str, value: Any) -> None:
        self._stored.extras[key] = value
        write_stored(self.path, self._stored)

    def close(self) -> None:
        """Releases the directory.

        On a disk, the end of the process releases it too, however it ends; in a bucket, the next
        run then waits for a minute.
        """
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def check(self) -> None:
        """Raises `TakenOverError` if another run has taken over a directory in a bucket."""
        if self._claim is not None:
            self._claim.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_foreign_files(self) -> None:
        """Refuses a directory that holds files of another program, which a run would overwrite."""
        there = objects.list_names(self.path)
        found = [n for n in ("checkpoints", "metrics.jsonl", "weights.npz") if n in there]
        if found and "config.json" not in there:
            raise UserError(
                f"the work directory {self.path} holds {', '.join(found)} but no config.json, so "
                "it is not the directory of a run; choose another with --workdir"
            )

    def _lock_directory(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        if not try_lock(self._lock):
            apart = launched_apart()
            advice = (
                f"{apart}: for one run of all of them, add --distributed"
                if apart
                else "wait for it, end it, or choose another with --workdir"
            )
            raise UserError(f"the work directory {self.path} is in use by another run; {advice}")
        for left in Path(self.path).glob(".*.tmp"):  # Starts that were killed as they wrote.
            if re.fullmatch(r"\..+\.[0-9]+\.tmp", left.name) and left.is_file():
                left.unlink()

    def _open(
        self,
        config: Mapping[str, Any],
        digest: str | None,
        upgrade: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        """Compares the config with the run's own, or writes that of a new run."""
        if objects.exists(self.path / "config.json"):
            stored = read_stored(self.path)
            saved = upgrade_config(stored.config)
            with contextlib.suppress(UserError):  # The difference below names the keys.
                saved = upgrade(saved)
            refused = changes(saved, config)
            if refused:
                raise UserError(
                    f"the work directory {self.path} holds a run of another config "
                    f"({'; '.join(refused)}); use that config, or another --workdir"
                    + _extension_advice(saved, config)
                )
            saved_digest = stored.extras.get(FIXED_DIGEST)
            if saved_digest != digest:
                raise UserError(
                    f"the work directory {self.path} holds a run with other fixed arrays "
                    f"({saved_digest} -> {digest}), such as a teacher; restore their file, or use "
                    "another --workdir"
                )
            warn_of_other_version(self.path)
        else:
            stored = StoredConfig(
                json.loads(json.dumps(config)), {FIXED_DIGEST: digest} if digest else {}
            )
        self._stored = stored
        if RUN_ID not in stored.extras:  # A new run, or one of version 0.1.0.
            self._add(RUN_ID, uuid.uuid4().hex)
        self.identity = {"run": stored.extras[RUN_ID], "config": digest_of(stored.config)}
        write_versions(self.path)


def _extension_advice(saved: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    before, after = saved.get("total_steps"), config.get("total_steps")
    if before is None or after is None or after <= before:
        return ""
    return f"; to take more steps, leave total_steps as it is and add --extend_to={after}"


def has_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether the directory is that of a run that has saved its state at least once."""
    return is_run(path) and newest_checkpoint(path) is not None


def newest_checkpoint(path: str | os.PathLike[str]) -> int | None:
    """The step of a run's newest checkpoint, whole or not; None if there is none."""
    directory = as_path(path) / "checkpoints"
    if is_bucket(directory):  # Where a checkpoint has its name from the beginning.
        files = objects.list_files(directory)
        names = [n.removesuffix(COMMITTED) for n in files if n.endswith(COMMITTED)]
    else:
        names = [each.name for each in Path(directory).glob("[0-9]*")]
    return max((int(name) for name in names if name.isdecimal()), default=None)
