"""Weight files on disk: `NAME.npz` in Google's layout, and what the model is in `NAME.json`."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from vit_jax.atomic import write_together
from vit_jax.errors import UserError
from vit_jax.weights.google import from_google, to_google

# What zipfile raises when any one byte is wrong: besides BadZipFile, by a failed seek (OSError), an
# unknown version or compression (NotImplementedError), an encryption flag (RuntimeError).
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
)


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Nested parameters of a weight file, and the description beside it (None if there is none).

    Args:
      path: a `.npz` file in Google's layout, or a run's directory.

    Raises:
      UserError: the file or its description is absent, damaged or not of this layout, or the
          run has not ended.
    """
    path = Path(path)
    if path.is_dir():
        path /= "weights.npz"
        if not path.exists():
            raise UserError(
                f"{path.parent}: the run has not ended, there is no weights.npz; "
                "finish it with the same train command"
            )
    flat = read_npz(path)
    try:
        return from_google(flat), _read_description(_description_path(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of a `.npz` file, by name. Nothing is unpickled, every checksum is verified.

    Raises:
      UserError: the file is absent, damaged, holds something else than plain arrays, or NaN or
          infinite values.
    """
    path = Path(path)
    try:
        file = open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path") from error
    with file:
        arrays = _read_archive(path, file)
    if infinite := [name for name, array in arrays.items() if not _is_finite(array)]:
        raise UserError(
            f"{path}: NaN or infinite values in {', '.join(infinite)}; "
            "take weights from an earlier step or from another file"
        )
    return arrays


def write_weights(
    path: str | os.PathLike[str], params: Mapping[str, Any], description: Mapping[str, Any]
) -> None:
    """Writes nested parameters to `NAME.npz` and a free JSON description to `NAME.json`.

    Equal arguments give equal bytes. Each file is replaced in one step, the description first,
    once both are safely on the disk: after a crash a new `.npz` always has its description.

    Raises:
      UserError: `path` does not end in `.npz`, or Google's layout has no name for a parameter.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise UserError(f"{path}: weights are written as .npz; choose a name with this ending")
    arrays = {name: np.asarray(array, order="C") for name, array in to_google(params).items()}
    if opaque := [name for name, array in arrays.items() if array.dtype.kind not in "fiu"]:
        raise TypeError(f"npz cannot hold the dtype of {', '.join(opaque)}")
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    write_together(
        {
            _description_path(path): lambda file: file.write(text.encode()),
            # savez dates every entry 1980-01-01: the bytes depend on names and values alone.
            path: lambda file: np.savez(file, allow_pickle=False, **dict(sorted(arrays.items()))),
        }
    )


def _read_archive(path: Path, file: IO[bytes]) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            return {
                member.removesuffix(".npy"): _read_member(archive, member)
                for member in archive.namelist()
            }
    except _DAMAGED as error:
        raise UserError(
            f"{path}: not a whole .npz file ({_one_line(error)}); download or copy it again"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path}: holds something else than plain arrays, or is damaged ({_one_line(error)}); "
            "get it again, or save it again without Python objects"
        ) from error


def _read_member(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        # zipfile compares the checksum at the entry's end only, and a damaged header may claim
        # a smaller array than there is.
        if file.read(1):
            raise ValueError(f"{member} is longer than its header says")
    if array.dtype.kind == "V":
        raise ValueError(f"{member} has the dtype {array.dtype.str}, which says nothing of values")
    return array


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _description_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".npz") + ".json")


def _read_description(path: Path) -> dict[str, Any] | None:
    try:
        description = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"its description {path.name} cannot be read ({_one_line(error)}); mend or remove it"
        ) from error
    if not isinstance(description, dict):
        raise UserError(f"its description {path.name} is no JSON object; mend or remove it")
    return description
