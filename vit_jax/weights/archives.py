"""Reading and writing files of named arrays: NumPy's `.npz`, and `.safetensors`.

Nothing is ever unpickled.
"""

from __future__ import annotations

import functools
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TypeVar

import ml_dtypes
import numpy as np

from vit_jax.errors import UserError
from vit_jax.weights.stored import StoredArray

T = TypeVar("T")

# What zipfile raises for a wrong byte: besides BadZipFile, a failed seek (OSError), an unknown
# version or compression (NotImplementedError), or an encryption flag (RuntimeError).
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
)
_PICKLES = (".pth", ".pt", ".bin", ".pkl", ".ckpt")


def open_arrays(path: Path) -> dict[str, StoredArray]:
    """Opens a `.npz` or `.safetensors` file; its arrays by name are read later.

    Reading an array raises a `UserError` that names it if it is damaged, or holds NaN or infinite
    values.

    Raises:
      UserError: the file is missing, damaged, of another kind, or holds something other than plain
        arrays.
    """
    if path.suffix in _PICKLES:
        raise UserError(
            f"{path}: such files are pickles, which can run code, so they are never loaded; save "
            "the weights as .safetensors"
        )
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path") from error
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if start == b"PK" or path.suffix == ".npz":
        return _open_npz(path)
    raise UserError(f"{path}: not a weight file; give a .npz or a .safetensors file")


def _open_npz(path: Path) -> dict[str, StoredArray]:
    def open_all() -> dict[str, StoredArray]:
        # It stays open as long as one of its arrays is referenced.
        archive = zipfile.ZipFile(path)
        return {
            member.removesuffix(".npy"): _npz_member(path, archive, member)
            for member in archive.namelist()
        }

    return _reporting_npz(path, open_all)


def _npz_member(path: Path, archive: zipfile.ZipFile, member: str) -> StoredArray:
    name = member.removesuffix(".npy")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{member} has the format version {version}")
        header = np.lib.format.read_array_header_1_0
        if version == (2, 0):
            header = np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    if dtype.hasobject:
        raise ValueError(f"{member} holds Python objects")
    if dtype.kind == "V" and dtype.str != "|V2":
        raise ValueError(f"{member} has the dtype {dtype.str}, which is not a number")
    # NumPy knows no bfloat16 and writes it as two raw bytes.
    is_bfloat16 = dtype.kind == "V"

    def read() -> np.ndarray:
        with archive.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            # zipfile compares the checksum only at the entry's end, and a damaged header may claim
            # a smaller array.
            if file.read(1):
                raise ValueError(f"{member} is longer than its header says")
        return array.view(ml_dtypes.bfloat16) if is_bfloat16 else array

    return StoredArray(
        shape,
        np.dtype(ml_dtypes.bfloat16) if is_bfloat16 else dtype,
        lambda: _finite(path, name, _reporting_npz(path, read)),
    )


def _reporting_npz(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except _DAMAGED as error:
        raise UserError(
            f"{path}: not a whole .npz file ({_one_line(error)}); download or copy it again"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path}: holds something other than plain arrays, or is damaged ({_one_line(error)}); "
            "get it again, or save it without Python objects"
        ) from error


def _open_safetensors(path: Path) -> dict[str, StoredArray]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise _needs_safetensors(path) from error

    def read(name: str) -> np.ndarray:
        # Opened each time; otherwise all pages of the file that were read would stay in memory.
        return _finite(path, name, safe_open(path, framework="numpy").get_tensor(name))

    try:
        file = safe_open(path, framework="numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a whole .safetensors file ({_one_line(error)}); download or copy it again"
        ) from error
    return {
        name: StoredArray(
            tuple(slice_.get_shape()),
            _safetensors_dtype(path, name, slice_.get_dtype()),
            functools.partial(read, name),
        )
        for name, slice_ in slices.items()
    }


def _safetensors_dtype(path: Path, name: str, code: str) -> np.dtype:
    kinds = {"F": "float", "I": "int", "U": "uint", "BF": "bfloat"}
    kind, bits = code.rstrip("0123456789"), code.lstrip("BFIU")
    try:
        if code == "BF16":
            return np.dtype(ml_dtypes.bfloat16)
        return np.dtype("bool") if code == "BOOL" else np.dtype(f"{kinds[kind]}{bits}")
    except (KeyError, TypeError):
        raise UserError(
            f"{path}: {name} is of the type {code}; save the weights as float32, float16 or "
            "bfloat16"
        ) from None


def _finite(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    is_float = array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16
    if is_float and not np.isfinite(array).all():
        raise UserError(
            f"{path}: NaN or infinite values in {name}; "
            "take weights from an earlier step or from another file"
        )
    return array


def bytes_writer(data: bytes) -> Callable[[IO[bytes]], object]:
    """Returns a function that writes these bytes into an open file."""
    return lambda file: file.write(data)


def array_writer(path: Path, arrays: Mapping[str, np.ndarray]) -> Callable[[IO[bytes]], object]:
    """Returns a function that writes the arrays into an open file, in the format of the suffix.

    Equal arrays under equal names in equal order give equal bytes.

    Raises:
      UserError: the package safetensors is missing.
      TypeError: npz cannot hold the dtype of an array.
    """
    if path.suffix == ".npz":
        if opaque := [name for name, array in arrays.items() if array.dtype.kind not in "fiu"]:
            raise TypeError(f"npz cannot hold the dtype of {', '.join(opaque)}")
        # savez dates every entry 1980-01-01: the bytes depend on names and values alone.
        return lambda file: np.savez(file, allow_pickle=False, **arrays)
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise _needs_safetensors(path) from error
    # Without this word transformers refuses the file.
    return lambda file: file.write(save(dict(arrays), metadata={"format": "pt"}))


def _needs_safetensors(path: Path) -> UserError:
    return UserError(
        f"{path}: this needs the package safetensors; pip install 'vit_jax[safetensors]'"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
