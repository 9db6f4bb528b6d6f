"""Paths that are no weight file, or one of another kind: one line that says what it is."""

import json
import os
import pickle
import socket
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_models import SMALL, random_params, refusal
from vit_jax.weights.classes import read_class_names
from vit_jax.weights.files import open_weights, write_weights


def _torch_zip(path: Path, root: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/data.pkl", pickle.dumps({"state_dict": {}}))
        archive.writestr(f"{root}/version", "3\n")


@pytest.mark.parametrize(
    "name",
    ["model_best.pth.tar", "checkpoint", "PyTorch_Model.BIN", "last.PT", "epoch_3", "w.npz", "a.b"],
)
def test_files_of_pytorch_under_any_name(tmp_path: Path, name: str) -> None:
    _torch_zip(tmp_path / name, "archive")
    assert "pickle" in refusal(open_weights, tmp_path / name)
    assert "save_file" in refusal(open_weights, tmp_path / name)
    (tmp_path / name).write_bytes(pickle.dumps([1], protocol=2))
    assert "pickle" in refusal(open_weights, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "start", "words"),
    [
        ("model.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("weights", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("flax_model.msgpack", b"\x81\xa6params\x80", "msgpack"),
        ("model.onnx", b"\x08\x07", "ONNX"),
        ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("w.npz", b"<!DOCTYPE html><html>", "web page"),
        ("w.safetensors", b"\n <html>", "web page"),
        ("w.npz.gz", b"\x1f\x8b\x08", "gzip"),
        ("model.tar", b"w.npz\0", "archive"),
        ("w.npz", b"", "not a whole .npz"),
        ("w.safetensors", b"", "not a whole .safetensors"),
        ("notes", b"words", "not a weight file"),
    ],
)
def test_other_kinds_of_files(tmp_path: Path, name: str, start: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(start)
    assert words in refusal(open_weights, tmp_path / name)


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "weights", "model"])
def test_what_may_never_end_is_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    assert "a pipe" in refusal(open_weights, path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "a device" in refusal(open_weights, path)
    path.unlink()
    path.symlink_to(path)
    assert "symbolic links" in refusal(open_weights, path)
    path.unlink()
    path.symlink_to(tmp_path / "gone")
    assert "No such file" in refusal(open_weights, path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert "a socket" in refusal(open_weights, path)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"model": ' * 50_000,
        b'{"model": {"image_size": ' + b"9" * 5_000 + b"}}",
        b'{"model": {"norm_epsilon": 1e-320}}',
        b'{"model": {"norm_epsilon": 1e999}}',
        b'{"model": {"preprocessing": {"std": [1e-320, 1e-320, 1e-320]}}}',
        b'{"model": {"preprocessing": {"mean": [1e30, 0, 0]}}}',
        b'{"model": {"depth": 1000, "scan": false}}',
        b'{"model": {"image_size": 1000000}}',
        b'{"model": {"name": "ViT-mu/4"}}',
        b'{"class_names": [1, 2, 3, 4, 5]}',
        b'{"class_names": ["a", null, "c", "d", "e"]}',
        b'{"loss": ["softmax"]}',
        b"\xff\xfe{",
        b"null",
    ],
)
def test_descriptions_that_describe_nothing(tmp_path: Path, content: bytes) -> None:
    write_weights(tmp_path / "w.npz", random_params(SMALL), SMALL)
    (tmp_path / "w.json").write_bytes(content)
    refusal(open_weights, tmp_path / "w.npz")


def test_descriptions_that_never_end(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.npz", random_params(SMALL), SMALL)
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
        (tmp_path / "w.json").unlink()
        make(tmp_path / "w.json")
        assert "w.json" in refusal(open_weights, tmp_path / "w.npz")
    (tmp_path / "w.json").unlink()
    (tmp_path / "w.json").symlink_to(tmp_path / "gone")
    assert "w.json" in refusal(open_weights, tmp_path / "w.npz")
    os.mkfifo(tmp_path / "names.txt")
    assert "a pipe" in refusal(read_class_names, tmp_path / "names.txt", 5)


def test_a_changed_description_is_noticed(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.npz", random_params(SMALL), SMALL, class_names=tuple("abcde"))
    path = tmp_path / "w.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"c"', b'"k"'))
    message = refusal(open_weights, tmp_path / "w.npz")
    assert "damaged, or was changed by hand" in message and '"crc32"' in message
    # White space is nobody's damage, and a person may change what they want.
    description = json.loads(whole)
    path.write_text(json.dumps(description))
    assert open_weights(tmp_path / "w.npz").class_names == tuple("abcde")
    del description["crc32"]
    path.write_text(json.dumps(description | {"class_names": list("abkde")}))
    assert open_weights(tmp_path / "w.npz").class_names == tuple("abkde")


# Directories.


def test_a_hub_folder_of_pickles(tmp_path: Path) -> None:
    _torch_zip(tmp_path / "pytorch_model.bin", "archive")
    message = refusal(open_weights, tmp_path)
    assert "pytorch_model.bin" in message and "save_pretrained" in message
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "pytorch_model-00001-of-00002.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    assert "save_pretrained" in refusal(open_weights, tmp_path)


def test_a_folder_with_another_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "B_16.npz", x=np.zeros(3))
    assert f"{tmp_path / 'B_16.npz'}" in refusal(open_weights, tmp_path)


# Claims.


def _header(shape: Any, descr: str = "<f4") -> bytes:
    text = str({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "shape",
    [(10**13,), (10**7, 10**7), (1,) * 65, (2,) * 64, (-1,), (True, 3), (0.5,), (3, -4), "(3,)"],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_shape_is_checked_against_the_file(tmp_path: Path, shape: Any, compression: int) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w", compression) as archive:
        archive.writestr("cls.npy", _header(shape) + bytes(68_000))
    assert "cls.npy" in refusal(open_weights, tmp_path / "w.npz") or "shape" in refusal(
        open_weights, tmp_path / "w.npz"
    )


def test_what_unpacks_to_far_more_than_the_file_is_refused(tmp_path: Path) -> None:
    """As many zeros as claimed: the length of the file gives it away."""
    shape = (768, 100_000)
    with (
        zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("head/kernel.npy", "w") as file,
    ):
        file.write(_header(shape))
        for _ in range(shape[0]):
            file.write(bytes(4 * shape[1]))
    assert (tmp_path / "w.npz").stat().st_size < 10**6
    assert "unpack to 0.3 GiB" in refusal(open_weights, tmp_path / "w.npz")


def test_a_directory_that_lies_about_sizes(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "w.npz", cls=np.zeros(1000, np.float32))
    whole = bytearray((tmp_path / "w.npz").read_bytes())
    place = whole.index(b"PK\x01\x02") + 24  # the unpacked size
    whole[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    (tmp_path / "w.npz").write_bytes(whole)
    assert "claims 4,294,967,294 bytes" in refusal(open_weights, tmp_path / "w.npz")


@pytest.mark.parametrize("shape", [[1] * 65, [10**13], [-1], [2**63, 2**63]])
def test_a_shape_of_safetensors(tmp_path: Path, shape: list[int]) -> None:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}
    header = json.dumps({"cls_token": entry}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert "not a whole .safetensors" in refusal(open_weights, tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "header", [b"[" * 10_000, b'{"a":' * 10_000, b"[]", b'{"a": 3}', b'{"a": {}}', b"\xff" * 30]
)
def test_a_header_of_safetensors(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert str(path) in refusal(open_weights, path)


def test_two_arrays_that_changed_places(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_weights(path, random_params(SMALL), SMALL, layout="timm")
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    one, other = "blocks.0.norm1.weight", "blocks.1.norm2.weight"
    places = [header[name]["data_offsets"] for name in (one, other)]
    header[one]["data_offsets"], header[other]["data_offsets"] = places[::-1]
    text = json.dumps(header, separators=(",", ":")).encode().ljust(size)
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])
    message = refusal(open_weights, path)
    assert one in message and other in message
