"""What a file is that someone gives as weights, by its name and its first bytes."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from vit_jax.errors import UserError
from vit_jax.reading import other_kind

_LONGEST_JSON = 64 * 2**20
_PICKLES = (
    *(".pth", ".pt", ".bin", ".pkl", ".pickle", ".joblib", ".ckpt", ".pth.tar", ".pt.tar"),
    ".pdparams",
)
# How files of other kinds start, and what they are.
_STARTS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the file; run git lfs pull"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a single array (.npy)"),
    (b"\x1f\x8b", "compressed with gzip; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it"),
    (b"BZh", "compressed with bzip2; unpack it"),
    (b"%PDF", "a PDF file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)
_SUFFIXES = {
    ".msgpack": "a msgpack file, as Flax writes",
    ".h5": "an HDF5 file, as Keras and TensorFlow write",
    ".keras": "a file of Keras",
    ".onnx": "an ONNX program, which examples/run_exported.py runs",
    ".pb": "a TensorFlow program",
    ".tflite": "a TensorFlow Lite program",
    ".stablehlo": "an exported program, which examples/run_exported.py runs",
    ".gguf": "a GGUF file",
    **dict.fromkeys((".tar", ".tgz", ".gz", ".xz", ".7z", ".rar"), "an archive; unpack it"),
}
_CONVERT = (
    "such files are pickles, which can run code, so they are never loaded; load it once with "
    "PyTorch where you trust it, and save the weights as .safetensors: "
    "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
)


def require_regular(path: Path) -> os.stat_result:
    """Checks that a path is a file: reading a pipe or a device may never end.

    Raises:
      UserError: it is missing or something else.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte.
        raise UserError(f"{path}: {getattr(error, 'strerror', error)}; check the path") from error
    if (kind := other_kind(found.st_mode)) is not None:
        raise UserError(f"{path}: {kind}; check the path")
    return found


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Raises:
      UserError: the file cannot be read, or holds something else.
    """
    if require_regular(path).st_size > _LONGEST_JSON:
        raise UserError(f"{path}: more than {_LONGEST_JSON // 2**20} MiB are no description")
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object")
    return value


def refuse_pickles(path: Path) -> None:
    """Refuses a file whose name says that it is a pickle; it is not even opened.

    Raises:
      UserError: it is one.
    """
    if path.name.lower().endswith(_PICKLES):
        raise UserError(f"{path}: {_CONVERT}")


def refuse_others(path: Path, start: bytes) -> None:
    """Refuses a file that is neither `.npz` nor `.safetensors`, and says what it is.

    Args:
      path: of the file.
      start: its first bytes.

    Raises:
      UserError: it is of another kind.
    """
    if start[8:9] == b"{":  # A .safetensors file: JSON after its length, which may be any bytes.
        return
    name = path.name.lower()
    words = next((words for first, words in _STARTS if start.startswith(first)), None)
    words = words or next((w for suffix, w in _SUFFIXES.items() if name.endswith(suffix)), None)
    if start.lstrip()[:1] == b"<" or start.lstrip()[:9].lower() == b"<!doctype":
        words = "a web page and not the file; download it again"
    if _is_pickle(path, start):
        raise UserError(f"{path}: a file of PyTorch; {_CONVERT}")
    if words is not None:
        raise UserError(f"{path}: {words}; give a .npz or a .safetensors file")


def _is_pickle(path: Path, start: bytes) -> bool:
    """Whether it is one, alone or in PyTorch's zip archive. The names tell; nothing is read."""
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return True
    if start[:2] != b"PK":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except Exception:  # Whatever zipfile finds wrong is told where it is opened to be read.
        return False
