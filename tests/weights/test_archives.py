import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.small_models import assert_same, refusal
from vit_jax.errors import UserError
from vit_jax.weights.archives import open_arrays

RNG = np.random.default_rng(0)
ARRAYS = {
    "Transformer/encoder_norm/scale": RNG.normal(size=48).astype(np.float32),
    "cls": RNG.normal(size=(1, 1, 48)).astype(np.float32),
    "embedding/kernel": RNG.normal(size=(8, 8, 3, 48)).astype(np.float32),
}


def _read(path: Any) -> dict[str, Any]:
    return {name: np.asarray(array) for name, array in open_arrays(path).items()}


def _error(path: Any) -> str:
    """The one line that names the file, whether opening or reading it fails."""
    message = refusal(_read, path)
    assert str(path) in message
    return message


def _npz(directory: Path, arrays: dict[str, np.ndarray] = ARRAYS, save: Any = np.savez) -> Path:
    save(directory / "w.npz", **arrays)
    return directory / "w.npz"


def _safetensors(directory: Path, arrays: dict[str, np.ndarray] = ARRAYS) -> Path:
    save_file(arrays, directory / "w.safetensors")
    return directory / "w.safetensors"


class Bomb:
    def __init__(self, path: Any) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


# What is read, and when.


@pytest.mark.parametrize("write", [_npz, _safetensors])
def test_names_shapes_types_and_values(tmp_path: Path, write: Any) -> None:
    arrays = {
        **ARRAYS,
        "half": np.linspace(-2, 2, 7).astype(np.float16),
        "double": np.linspace(-2, 2, 7).reshape(7, 1),
        "steps": np.arange(5),
        "flags": np.array([True, False]),
        "scalar": np.array(3, np.uint8),
        "none": np.zeros((0, 3), np.float32),
    }
    assert_same(open_arrays(write(tmp_path, arrays)), arrays)


def test_fortran_order_and_compression(tmp_path: Path) -> None:
    arrays = {"kernel": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    assert_same(open_arrays(_npz(tmp_path, arrays, np.savez_compressed)), arrays)


def test_bfloat16_comes_as_raw_bytes_from_npz_and_by_name_from_safetensors(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.140625, 2.0**-130], np.float32)  # all of 8 significant bits
    rounded = values.astype(ml_dtypes.bfloat16)
    _npz(tmp_path, {"cls": rounded})
    with np.load(tmp_path / "w.npz") as file:
        assert file["cls"].dtype.str == "|V2"
    for path in (tmp_path / "w.npz", _safetensors(tmp_path, {"cls": rounded})):
        array = open_arrays(path)["cls"]
        assert array.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(np.asarray(array, np.float32), values)


def test_an_array_is_read_when_it_is_asked_for_and_anew_each_time(tmp_path: Path) -> None:
    arrays = open_arrays(_npz(tmp_path))
    np.asarray(arrays["cls"])[:] = 7
    np.testing.assert_array_equal(arrays["cls"], ARRAYS["cls"])
    assert np.asarray(arrays["cls"], np.float16).dtype == np.float16


# Values that are not numbers.


@pytest.mark.parametrize("write", [_npz, _safetensors])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(
    tmp_path: Path, write: Any, dtype: Any, value: float
) -> None:
    bad = np.array([0, value]).astype(dtype)
    path = write(tmp_path, {"cls": np.zeros(3), "head/bias": bad, "step": np.arange(2)})
    arrays = open_arrays(path)  # What is wrong only shows when it is read,
    for name in ("cls", "step"):
        np.asarray(arrays[name])
    message = refusal(np.asarray, arrays["head/bias"])  # and then each time.
    assert message == refusal(np.asarray, arrays["head/bias"], np.float32)
    assert str(path) in message
    assert "NaN or infinite values in head/bias" in message and "cls" not in message


@pytest.mark.parametrize("dtype", ["V1", "V3", "V4", "V8", [("x", "f4")]])
def test_raw_bytes_in_the_place_of_values(tmp_path: Path, dtype: Any) -> None:
    assert "cls" in _error(_npz(tmp_path, {"cls": np.zeros(3, dtype)}))


def test_types_of_safetensors_that_numpy_has_not(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [0, 3]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0")
    assert "w is of the type F8_E4M3" in _error(path)


# Pickles.


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = _npz(tmp_path, {"cls": np.array([Bomb(tmp_path / "exploded")], object)})
    assert "Python objects" in _error(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.ckpt", "w.pkl"])
def test_files_of_pickles_are_not_even_opened(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(tmp_path / "exploded")))
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", lambda *args: pytest.fail("opened"))
        assert "save the weights as .safetensors" in _error(tmp_path / name)
    for renamed in ("w.npz", "weights"):  # the same under another name
        (tmp_path / renamed).write_bytes((tmp_path / name).read_bytes())
        _error(tmp_path / renamed)
    assert not (tmp_path / "exploded").exists()


# Other files.


def test_missing_file(tmp_path: Path) -> None:
    for name in ("absent.npz", "absent.safetensors", "absent"):
        assert "No such file" in _error(tmp_path / name)


def test_files_that_hold_no_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert "give a .npz or a .safetensors file" in _error(tmp_path / "array.npy")
    for name in ("text.zip", "text.npz"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("readme.txt", "words")
        _error(tmp_path / name)
    (tmp_path / "image.safetensors").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    _error(tmp_path / "image.safetensors")
    (tmp_path / "empty").write_bytes(b"")
    _error(tmp_path / "empty")
    _error(tmp_path)


def test_safetensors_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, npz = _safetensors(tmp_path), _npz(tmp_path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert "pip install safetensors" in _error(path)
    assert_same(open_arrays(npz), ARRAYS)


# Damage.


@pytest.mark.parametrize("keep", [0, 1, 1000, 0.5, 0.999])
@pytest.mark.parametrize("write", [_npz, _safetensors])
def test_truncated_file(tmp_path: Path, write: Any, keep: Any) -> None:
    path = write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    assert "download or copy it again" in _error(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_flipped_byte_changes_a_value_or_escapes_as_another_error(
    tmp_path: Path, save: Any
) -> None:
    arrays = {"a/b": np.arange(3.0), "c": np.ones((2, 1), np.float32)}
    path = _npz(tmp_path, arrays, save)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x08]) + whole[place + 1 :])
        try:
            read = _read(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
        else:  # an entry may be lost with its directory record: the check against a model finds it
            for name, array in read.items():
                np.testing.assert_array_equal(array, arrays[name], strict=True)
    assert refused > len(whole) / 3


def test_no_flipped_byte_in_the_header_of_safetensors_escapes_as_another_error(
    tmp_path: Path,
) -> None:
    path = _safetensors(tmp_path, {"a": np.arange(3.0), "b": np.ones((2, 1), np.float32)})
    whole = path.read_bytes()
    refused = 0
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in range(header):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x08]) + whole[place + 1 :])
        try:  # It has no checksums: another name or shape is for the check against a model.
            _read(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > header / 2


def test_flipped_central_directory(tmp_path: Path) -> None:
    path = _npz(tmp_path)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\x01\x02")] ^= 0xFF
    path.write_bytes(whole)
    assert "not a whole .npz file" in _error(path)


def test_a_flipped_value_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = _npz(tmp_path)
    whole = bytearray(path.read_bytes())
    value = ARRAYS["embedding/kernel"].tobytes()
    whole[whole.index(value) + len(value) - 1] ^= 0x40
    path.write_bytes(whole)
    assert "CRC" in _error(path)


def test_a_header_that_claims_less_than_there_is(tmp_path: Path) -> None:
    path = _npz(tmp_path, {"cls": np.zeros(48)})
    path.write_bytes(path.read_bytes().replace(b"(48,)", b"(40,)"))
    _error(path)


def test_a_header_that_claims_less_with_a_right_checksum(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.zeros(48))
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("cls.npy", file.getvalue().replace(b"(48,)", b"(40,)"))
    assert "cls.npy is longer than its header says" in _error(tmp_path / "w.npz")
