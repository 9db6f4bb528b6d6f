"""The directory of one run: who may use it, and which config it holds."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import jax

from vit_jax import atomic
from vit_jax.errors import UserError
from vit_jax.parallel.processes import launched_apart
from vit_jax.schema import difference
from vit_jax.version import __version__

# Where and how fast a run goes may change from one start to the next; what it computes may not.
_MAY_CHANGE = (
    ("mesh",),
    ("data", "workers"),
    ("data", "data_dir"),
    ("data", "max_labels"),
    ("model", "attention"),
    ("model", "remat"),
    ("model", "scan"),
)

_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets"),
    *("array-record", "ml-collections", "numpy", "pillow"),
)


class RunDirectory:
    """Claims a directory for one run, for as long as the object is open.

    The first start writes `config.json`; each further start must bring the same config, and adds
    nothing to it. `versions.json` tells what the latest start ran on. Only the process `writer`
    is true for writes.

    Args:
      config: nested, what JSON can hold.
      upgrade: makes of the config of an earlier version what this one would have written, so that
          a key that is new since then is no difference; raises `UserError` where it cannot.

    Raises:
      UserError: the directory cannot be written, another run uses it, or it holds another config.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        config: Mapping[str, Any],
        *,
        writer: bool,
        upgrade: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config,
    ):
        if "://" in str(path):
            raise UserError(f"{path}: a work directory must be a local or mounted path")
        self.path = Path(path).expanduser().absolute()
        self._lock: int | None = None
        if not writer:
            return
        try:
            self._refuse_foreign_files()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            self._claim(config, upgrade)
        except OSError as error:
            self.close()
            raise UserError(
                f"cannot write to the work directory {self.path} ({error.strerror}); make room or "
                "let it be written, or choose another with --workdir"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    @property
    def profile(self) -> Path:
        """Where traces of steps are."""
        return self.path / "profile"

    @property
    def weights(self) -> Path:
        """The file of final weights; it exists when the run has ended."""
        return self.path / "weights.npz"

    def close(self) -> None:
        """Lets go of the directory; the end of the process, however it comes, does so too."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _refuse_foreign_files(self) -> None:
        """Before anything is written: a run would overwrite these, and they are not its own."""
        names = ("checkpoints", "metrics.jsonl", "weights.npz")
        found = [name for name in names if (self.path / name).exists()]
        if found and not (self.path / "config.json").exists():
            raise UserError(
                f"the work directory {self.path} holds {', '.join(found)} but no config.json, so "
                "it is not a run's; choose another with --workdir"
            )

    def _claim(
        self, config: Mapping[str, Any], upgrade: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            apart = launched_apart()
            advice = (
                f"{apart}: for one run of all of them, add --distributed"
                if apart
                else "wait for it, end it, or choose another with --workdir"
            )
            raise UserError(
                f"the work directory {self.path} is in use by another run; {advice}"
            ) from None
        file = self.path / "config.json"
        if file.exists():
            saved = read_config(self.path)
            with contextlib.suppress(UserError):  # Then the keys that are gone are the difference.
                saved = upgrade(saved)
            changes = difference(_comparable(saved), _comparable(config))
            if changes:
                raise UserError(
                    f"the work directory {self.path} holds a run of another config "
                    f"({'; '.join(changes)}); use that config, or another --workdir"
                )
        else:
            write_json(file, config)
        write_json(self.path / "versions.json", _versions())


def is_run(path: str | os.PathLike) -> bool:
    """Whether the directory is that of a run; those of hubs have a `config.json` too."""
    path = Path(path).expanduser()
    return all((path / name).exists() for name in ("config.json", "lock"))


def has_checkpoint(path: str | os.PathLike) -> bool:
    """Whether the directory is of a run that has saved its state at least once."""
    return is_run(path) and any((Path(path).expanduser() / "checkpoints").glob("[0-9]*"))


def read_config(path: str | os.PathLike) -> dict[str, Any]:
    """The config of the run in directory `path`, as a nested dict.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    file = Path(path).expanduser() / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is not the directory of a run: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); restore it or remove it") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is no JSON object; restore it or remove it")
    return config


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a file of indented JSON, whole or not at all."""
    atomic.write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as JSON gives it back, without what may change."""
    plain = json.loads(json.dumps(config))
    for *sections, key in _MAY_CHANGE:
        section = plain
        for name in sections:
            section = section.get(name, {})
        section.pop(key, None)
    return plain


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
