"""The directory of one run: its config, its versions, and the lock that keeps others out."""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax

from vit_jax import atomic
from vit_jax.errors import UserError
from vit_jax.locks import try_lock
from vit_jax.parallel.processes import launched_apart
from vit_jax.runs.changes import changes
from vit_jax.runs.saved import upgrade_config
from vit_jax.version import __version__

# Keys in `config.json` besides the config's own: what identifies fixed arrays, and the run; the
# steps that it was extended to; the differences of its data that were accepted; and the digest of
# its final weights.
_DIGEST, _RUN_ID = "fixed_digest", "run_id"
_EXTENDED_TO, _CHANGED_DATA = "extended_to", "changed_data"
_WEIGHTS = "weights_digest"
_EXTRAS = (_DIGEST, _RUN_ID, _EXTENDED_TO, _CHANGED_DATA, _WEIGHTS)

_log = logging.getLogger(__name__)

_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets"),
    *("array-record", "ml-collections", "numpy", "pillow"),
)


class RunDirectory:
    """Claims a directory for one run, for as long as the object is open.

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
        if "://" in str(path):
            raise UserError(f"{path}: a work directory must be a local or mounted path")
        self.path = Path(path).expanduser().absolute()
        self._lock: int | None = None
        self.identity: dict[str, str] | None = None
        if not writer:
            return
        try:
            self._refuse_foreign_files()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            self._claim(config, digest, upgrade)
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
    def checkpoints(self) -> Path:
        """The directory of checkpoints."""
        return self.path / "checkpoints"

    @property
    def profile(self) -> Path:
        """The directory of traces of steps."""
        return self.path / "profile"

    @property
    def weights(self) -> Path:
        """The file of final weights; it exists when the run has ended."""
        return self.path / "weights.npz"

    @property
    def data_list(self) -> Path:
        """The list of the data's files."""
        return self.path / "data.gz"

    def extend(self, before: int, to: int) -> None:
        """Notes that the run is extended; keeps the final weights that it had, under other names.

        Args:
          before: the steps that it had.
        """
        for file in (self.weights, self.weights.with_suffix(".json")):
            with contextlib.suppress(FileNotFoundError):
                file.rename(file.with_name(f"{file.stem}-{before}{file.suffix}"))
        self._add(_EXTENDED_TO, to)

    def note_changed_data(self, step: int, found: int, first: Sequence[str]) -> None:
        """Notes that the data is another one after a step, and that this was accepted."""
        noted = self._stored.extras.get(_CHANGED_DATA, [])
        self._add(_CHANGED_DATA, [*noted, {"after_step": step, "files": found, "first": first}])

    def note_weights(self) -> None:
        """Notes the digest of the final weights, on the writer."""
        if self.identity is not None:
            self._add(_WEIGHTS, self._digest_of_weights())

    def weights_are_whole(self) -> bool:
        """Whether the final weights are those that were noted, if any were, on the writer.

        Raises:
          OSError: they cannot be read.
        """
        noted = None if self.identity is None else self._stored.extras.get(_WEIGHTS)
        return noted is None or noted == self._digest_of_weights()

    def _digest_of_weights(self) -> str:
        digest = hashlib.sha256()
        for file in (self.weights, self.weights.with_suffix(".json")):
            with open(file, "rb") as opened:
                while chunk := opened.read(2**20):
                    digest.update(chunk)
        return digest.hexdigest()

    def _add(self, key: str, value: Any) -> None:
        self._stored.extras[key] = value
        write_json(self.path / "config.json", self._stored.config | self._stored.extras)

    def close(self) -> None:
        """Releases the directory; the end of the process releases it too, however it ends."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_foreign_files(self) -> None:
        """Refuses a directory that holds files of another program, which a run would overwrite."""
        names = ("checkpoints", "metrics.jsonl", "weights.npz")
        found = [name for name in names if (self.path / name).exists()]
        if found and not (self.path / "config.json").exists():
            raise UserError(
                f"the work directory {self.path} holds {', '.join(found)} but no config.json, so "
                "it is not the directory of a run; choose another with --workdir"
            )

    def _claim(
        self,
        config: Mapping[str, Any],
        digest: str | None,
        upgrade: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        assert self._lock is not None
        if not try_lock(self._lock):
            apart = launched_apart()
            advice = (
                f"{apart}: for one run of all of them, add --distributed"
                if apart
                else "wait for it, end it, or choose another with --workdir"
            )
            raise UserError(f"the work directory {self.path} is in use by another run; {advice}")
        for left in self.path.glob(".*.tmp"):  # Of starts that were killed as they wrote.
            if re.fullmatch(r"\..+\.[0-9]+\.tmp", left.name) and left.is_file():
                left.unlink()
        file = self.path / "config.json"
        if file.exists():
            stored = _read(self.path)
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
            saved_digest = stored.extras.get(_DIGEST)
            if saved_digest != digest:
                raise UserError(
                    f"the work directory {self.path} holds a run with other fixed arrays "
                    f"({saved_digest} -> {digest}), such as a teacher; restore their file, or use "
                    "another --workdir"
                )
            warn_of_other_version(self.path)
        else:
            stored = _Stored(json.loads(json.dumps(config)), {_DIGEST: digest} if digest else {})
        self._stored = stored
        if _RUN_ID not in stored.extras:  # A new run, or one of version 0.1.0.
            self._add(_RUN_ID, uuid.uuid4().hex)
        self.identity = {"run": stored.extras[_RUN_ID], "config": _digest_of(stored.config)}
        write_json(self.path / "versions.json", _versions())


class _Stored(NamedTuple):
    """What `config.json` holds: the config as the first start wrote it, and the other keys."""

    config: dict[str, Any]
    extras: dict[str, Any]


def _extension_advice(saved: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    before, after = saved.get("total_steps"), config.get("total_steps")
    if before is None or after is None or after <= before:
        return ""
    return f"; to take more steps, leave total_steps as it is and add --extend_to={after}"


def is_run(path: str | os.PathLike[str]) -> bool:
    """Whether the directory is that of a run; a hub's directory has a `config.json` too."""
    path = Path(path).expanduser()
    return all((path / name).exists() for name in ("config.json", "lock"))


def has_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether the directory is that of a run that has saved its state at least once."""
    return is_run(path) and newest_checkpoint(path) is not None


def newest_checkpoint(path: str | os.PathLike[str]) -> int | None:
    """The step of a run's newest checkpoint, whole or not; None if there is none."""
    names = (each.name for each in (Path(path).expanduser() / "checkpoints").glob("[0-9]*"))
    return max((int(name) for name in names if name.isdecimal()), default=None)


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The config of the run in directory `path`, as a nested dict with today's keys.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    return upgrade_config(_read(path).config)


def read_extension(path: str | os.PathLike[str]) -> int | None:
    """The steps that the run in directory `path` was extended to; None if it was not.

    Raises:
      UserError: there is no run, or its config cannot be read.
    """
    steps: int | None = _read(path).extras.get(_EXTENDED_TO)
    return steps


def warn_of_other_version(path: str | os.PathLike[str]) -> None:
    """Logs a line if another version of this package last wrote the run."""
    try:
        file = Path(path).expanduser() / "versions.json"
        version = json.loads(file.read_bytes())["vit_jax"] if file.is_file() else __version__
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # Killed before the file was written, or damaged: nothing depends on it.
    if version != __version__:
        _log.warning(
            "%s was written by vit_jax %s, and this is %s: losses agree to about 1e-5, not bit for "
            "bit",
            path,
            version,
            __version__,
        )


def _read(path: str | os.PathLike[str]) -> _Stored:
    file = Path(path).expanduser() / "config.json"
    try:
        if file.exists() and not file.is_file():  # A FIFO would keep the reader waiting.
            raise OSError("it is not a plain file")
        config = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is not the directory of a run: it has no config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}); restore it or remove it") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is not a JSON object; restore it or remove it")
    return _Stored(config, {key: config.pop(key) for key in _EXTRAS if key in config})


def _digest_of(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a file of indented JSON, whole or not at all."""
    atomic.write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def _versions() -> dict[str, Any]:
    return {
        "vit_jax": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "command": sys.argv,
    }
