"""Reading and writing files of named arrays: NumPy's `.npz`, and `.safetensors`.

Nothing is ever unpickled.
"""

from __future__ import annotations

import functools
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import IO, TypeVar

import ml_dtypes
import numpy as np

from vit_jax.errors import UserError
from vit_jax.weights.kinds import refuse_others, refuse_pickles, require_regular
from vit_jax.weights.stored import StoredArray

T = TypeVar("T")

# No parameter of any model has more dimensions, and NumPy has arrays of at most 64.
_MOST_DIMENSIONS = 8
_MOST_MEMBERS = 20_000
# Bytes of the longest header that is read.
_LONGEST_HEADER = 32 * 2**20
# The key of the checksums that we write into the metadata of .safetensors, which has none itself.
_CHECKSUMS = "vit_jax.crc32"
# Weights hardly compress. What unpacks to more than this many times the file's length, and is
# large, was made to fill the memory.
_LARGEST_RATIO, _SMALL = 20, 2**28
# Deflate cannot do better.
_DEFLATE = 1040


def open_arrays(path: Path) -> dict[str, StoredArray]:
    """Opens a `.npz` or `.safetensors` file; its arrays by name are read later.

    Reading an array raises a `UserError` that names it if it is damaged, or holds NaN or infinite
    values. The sizes that the file claims are checked against its length first.

    Raises:
      UserError: the file is missing, damaged, of another kind, or holds something other than plain
        arrays.
    """
    refuse_pickles(path)
    length = require_regular(path).st_size
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path") from error
    refuse_others(path, start)
    if path.suffix.lower() == ".safetensors":
        return _open_safetensors(path, length)
    if start[:2] == b"PK" or path.suffix.lower() == ".npz":
        return _open_npz(path, length)
    raise UserError(f"{path}: not a weight file; give a .npz or a .safetensors file")


def _open_npz(path: Path, length: int) -> dict[str, StoredArray]:
    def open_all() -> dict[str, StoredArray]:
        # It stays open as long as one of its arrays is referenced.
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
        _require_possible(members, length)
        return {
            member.filename.removesuffix(".npy"): _npz_member(path, archive, member)
            for member in members
        }

    return _reporting_npz(path, open_all)


def _require_possible(members: Sequence[zipfile.ZipInfo], length: int) -> None:
    """Checks what the directory claims, before any memory is taken for it."""
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f"{len(members):,} entries")
    if len({member.filename for member in members}) < len(members):
        raise zipfile.BadZipFile("two entries have one name")
    for member in members:
        claimed, packed = member.file_size, member.compress_size
        if packed > length or claimed > packed * _DEFLATE + _DEFLATE:
            raise zipfile.BadZipFile(f"{member.filename} claims {claimed:,} bytes")
        if member.compress_type == zipfile.ZIP_STORED and claimed != packed:
            raise zipfile.BadZipFile(f"{member.filename} claims {claimed:,} of {packed:,} bytes")
    total = sum(member.file_size for member in members)
    if total > max(_LARGEST_RATIO * length, _SMALL):
        raise ValueError(
            f"it would unpack to {total / 2**30:.1f} GiB, which is {total // max(length, 1)} times "
            "its length"
        )


def _npz_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> StoredArray:
    name = member.filename.removesuffix(".npy")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{member.filename} has the format version {version}")
        header = np.lib.format.read_array_header_1_0
        if version == (2, 0):
            header = np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        begin = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects")
    if (dtype.kind == "V" and dtype.str != "|V2") or dtype.kind not in "fiucbV":
        raise ValueError(f"{member.filename} has the dtype {dtype.str}, which is not a number")
    _require_shape(member.filename, shape)
    claimed = begin + math.prod(shape) * dtype.itemsize
    if claimed != member.file_size:
        than = "longer" if member.file_size > claimed else "shorter"
        raise ValueError(f"{member.filename} is {than} than its header says")
    # NumPy knows no bfloat16 and writes it as two raw bytes.
    is_bfloat16 = dtype.kind == "V"

    def read() -> np.ndarray:
        with archive.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            # zipfile compares the checksum only at the entry's end.
            if file.read(1):
                raise ValueError(f"{member.filename} is longer than its header says")
        return array.view(ml_dtypes.bfloat16) if is_bfloat16 else array

    return StoredArray(
        shape,
        np.dtype(ml_dtypes.bfloat16) if is_bfloat16 else dtype,
        lambda: _finite(path, name, _reporting_npz(path, read)),
    )


def _require_shape(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{name} has {len(shape)} dimensions")
    if any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(f"{name} has the shape {shape}")


def _reporting_npz(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(
            f"{path}: holds something other than plain arrays, or is damaged ({_one_line(error)}); "
            "download or copy it again, or save it without Python objects"
        ) from error
    # A wrong byte makes zipfile and NumPy's reader of headers raise nearly anything: BadZipFile, a
    # failed seek (OSError), an encryption flag (RuntimeError), a SyntaxError, a TypeError.
    except Exception as error:
        raise UserError(
            f"{path}: not a whole .npz file ({_one_line(error)}); download or copy it again"
        ) from error


def _open_safetensors(path: Path, length: int) -> dict[str, StoredArray]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise _needs_safetensors(path) from error

    def read(name: str) -> np.ndarray:
        # Opened each time; otherwise all pages of the file that were read would stay in memory.
        try:
            array = safe_open(path, framework="numpy").get_tensor(name)
            if checksums and checksums.get(name) != _checksum(name, array):
                raise _damaged_safetensors(path, ValueError(f"the checksum of {name} differs"))
            return _finite(path, name, array)
        except (SafetensorError, OSError) as error:  # It has changed since.
            raise _damaged_safetensors(path, error) from error

    try:
        _require_order(path, length)
        file = safe_open(path, framework="numpy")
        checksums = json.loads((file.metadata() or {}).get(_CHECKSUMS, "{}"))
        if not isinstance(checksums, dict):
            raise ValueError("its checksums are damaged")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        for name, slice_ in slices.items():
            _require_shape(name, tuple(slice_.get_shape()))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise _damaged_safetensors(path, error) from error
    return {
        name: StoredArray(
            tuple(slice_.get_shape()),
            _safetensors_dtype(path, name, slice_.get_dtype()),
            functools.partial(read, name),
        )
        for name, slice_ in slices.items()
    }


def _damaged_safetensors(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: not a whole .safetensors file ({_one_line(error)}); download or copy it again"
    )


def _require_order(path: Path, length: int) -> None:
    """Refuses two arrays that have changed places: the format has no checksum.

    Writers list the arrays as they lie in the file, or in no order at all. If exchanging two makes
    a list that is in order, then these two were exchanged.
    """
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > min(length - 8, _LONGEST_HEADER):
            raise ValueError(f"its header claims {size:,} bytes")
        header = json.loads(file.read(size))
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    header.pop("__metadata__", None)
    entries = header.items()
    if not all(isinstance(e, dict) and isinstance(e.get("data_offsets"), list) for _, e in entries):
        raise ValueError("its header is damaged")
    listed = [(name, entry["data_offsets"]) for name, entry in entries]
    in_order = sorted(listed, key=lambda item: item[1])
    moved = [a for (a, _), (b, _) in zip(listed, in_order, strict=True) if a != b]
    if len(moved) == 2 and len(listed) > 3:
        raise ValueError(f"{moved[0]} and {moved[1]} have each other's place")


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


def array_writer(path: PurePath, arrays: Mapping[str, np.ndarray]) -> Callable[[IO[bytes]], object]:
    """Returns a function that writes the arrays into an open file, in the format of the suffix.

    Equal arrays under equal names in equal order give equal bytes. Both formats get a checksum of
    each array.

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

    def write(file: IO[bytes]) -> None:
        data = save(dict(arrays))
        end = 8 + int.from_bytes(data[:8], "little")
        # Without the word "pt" transformers refuses the file. It passes over the checksums. The
        # library itself writes several words in no fixed order.
        checksums = {name: _checksum(name, array) for name, array in arrays.items()}
        metadata = {"format": "pt", _CHECKSUMS: json.dumps(checksums)}
        header = {"__metadata__": metadata, **json.loads(data[8:end])}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(data)[end:])

    return write


def _checksum(name: str, array: np.ndarray) -> str:
    """A checksum of an array with its name, type and shape."""
    about = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode())
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return f"{zlib.crc32(values.data, about):08x}"


def _needs_safetensors(path: PurePath) -> UserError:
    return UserError(f"{path}: this needs the package safetensors; pip install safetensors")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
