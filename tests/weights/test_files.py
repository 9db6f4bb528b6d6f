import json
import os
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vit_jax.errors import UserError
from vit_jax.weights.files import read_npz, read_weights, write_weights
from vit_jax.weights.google import from_google

DATA = Path(__file__).parents[1] / "parity"
DESCRIPTION = {
    "model": {"name": "ViT-Ti/16", "image_size": 32},
    "class_names": ["chat", "żółw"],
    "averaged": False,
    "step": 3,
    "layout": "google",
}


@pytest.fixture(scope="module")
def params():
    with np.load(DATA / "vit_token.npz") as file:
        return from_google({n: file[n] for n in file.files if n.startswith("params/")})


def _assert_same(actual, expected):
    actual, expected = (traverse_util.flatten_dict(p, sep="/") for p in (actual, expected))
    assert actual.keys() == expected.keys()
    for path, leaf in expected.items():
        assert actual[path].dtype == leaf.dtype
        np.testing.assert_array_equal(actual[path], leaf, err_msg=path)


def _error(read, path):
    with pytest.raises(UserError) as error:
        read(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_what_is_written_is_read(tmp_path, params):
    write_weights(tmp_path / "weights.npz", params, DESCRIPTION)
    for path in (tmp_path / "weights.npz", tmp_path):  # a file or a run's directory
        read, description = read_weights(path)
        _assert_same(read, params)
        assert description == DESCRIPTION
    assert sorted(os.listdir(tmp_path)) == ["weights.json", "weights.npz"]


def test_the_file_is_numpys_and_has_the_released_names(tmp_path, params):
    write_weights(tmp_path / "weights.npz", params, DESCRIPTION)
    with np.load(DATA / "vit_token.npz") as parity, np.load(tmp_path / "weights.npz") as written:
        names = [n.removeprefix("params/") for n in parity.files if n.startswith("params/")]
        assert sorted(written.files) == sorted(names)
        for name in names:
            np.testing.assert_array_equal(written[name], parity[f"params/{name}"])


def test_equal_weights_give_equal_bytes(tmp_path, params):
    def reverse(tree):
        return {
            k: reverse(tree[k]) if isinstance(tree[k], dict) else tree[k] for k in [*tree][::-1]
        }

    write_weights(tmp_path / "one.npz", params, DESCRIPTION)
    fortran = reverse(params)
    fortran["head"] = {k: jnp.asarray(np.asfortranarray(v)) for k, v in params["head"].items()}
    write_weights(tmp_path / "two.npz", fortran, DESCRIPTION)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}


def test_dots_in_a_name_stay(tmp_path, params):
    path = tmp_path / "B_16-lr_0.001-res_224.npz"
    write_weights(path, params, DESCRIPTION)
    assert (tmp_path / "B_16-lr_0.001-res_224.json").exists()
    assert read_weights(path)[1] == DESCRIPTION


def test_only_npz_is_written(tmp_path, params):
    with pytest.raises(UserError, match=r"weights\.json: weights are written as \.npz"):
        write_weights(tmp_path / "weights.json", params, DESCRIPTION)


def test_a_dtype_that_npz_would_lose_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="cls"):
        write_weights(tmp_path / "weights.npz", {"cls": jnp.zeros((1, 1, 2), jnp.bfloat16)}, {})
    assert os.listdir(tmp_path) == []


def test_without_a_description(tmp_path, params):
    write_weights(tmp_path / "weights.npz", params, DESCRIPTION)
    (tmp_path / "weights.json").unlink()
    read, description = read_weights(tmp_path / "weights.npz")
    _assert_same(read, params)
    assert description is None


@pytest.mark.parametrize("text", ['{"model": ', "[1]", "\x00\x01", '"google"'])
def test_a_broken_description_is_an_error(tmp_path, params, text):
    write_weights(tmp_path / "weights.npz", params, DESCRIPTION)
    (tmp_path / "weights.json").write_text(text)
    assert "weights.json" in _error(read_weights, tmp_path / "weights.npz")


def test_a_run_that_has_not_ended(tmp_path):
    message = _error(read_weights, tmp_path)
    assert "has not ended" in message and "same train command" in message


def test_a_name_that_is_not_understood_comes_with_the_path(tmp_path):
    np.savez(tmp_path / "other.npz", **{"resnet/root_block/kernel": np.zeros(2)})
    assert "resnet/root_block/kernel" in _error(read_weights, tmp_path / "other.npz")


def test_missing_file(tmp_path):
    assert "No such file" in _error(read_npz, tmp_path / "absent.npz")
    assert "No such file" in _error(read_weights, tmp_path / "absent.npz")


@pytest.mark.parametrize("keep", [0, 1, 1000, 0.5, 0.999])
def test_truncated_file(tmp_path, params, keep):
    path = tmp_path / "weights.npz"
    write_weights(path, params, DESCRIPTION)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    assert "download or copy it again" in _error(read_npz, path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_flipped_byte_changes_a_value_or_escapes_as_another_error(tmp_path, save):
    path, arrays = tmp_path / "w.npz", {"a/b": np.arange(3.0), "c": np.ones((2, 1), np.float32)}
    save(path, **arrays)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x08]) + whole[place + 1 :])
        try:
            read = read_npz(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
        else:  # an entry may be lost with its directory record: the check against a model finds it
            for name, array in read.items():
                np.testing.assert_array_equal(array, arrays[name], strict=True)
    assert refused > len(whole) / 3


def test_flipped_central_directory(tmp_path, params):
    path = tmp_path / "weights.npz"
    write_weights(path, params, DESCRIPTION)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\x01\x02")] ^= 0xFF
    path.write_bytes(whole)
    assert "not a whole .npz file" in _error(read_npz, path)


def test_a_flipped_value_is_found_by_its_checksum(tmp_path, params):
    path = tmp_path / "weights.npz"
    write_weights(path, params, DESCRIPTION)
    whole = bytearray(path.read_bytes())
    value = params["embedding"]["kernel"].tobytes()
    whole[whole.index(value) + len(value) - 1] ^= 0x40
    path.write_bytes(whole)
    assert "CRC" in _error(read_npz, path)


def test_a_header_that_claims_less_than_there_is(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, cls=np.zeros(48))
    path.write_bytes(path.read_bytes().replace(b"(48,)", b"(40,)"))
    _error(read_npz, path)


def test_nothing_is_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.savez(tmp_path / "w.npz", cls=np.array([Bomb()], object))
    assert "Python objects" in _error(read_npz, tmp_path / "w.npz")
    assert not (tmp_path / "exploded").exists()


def test_other_files(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    _error(read_npz, tmp_path / "array.npy")
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("readme.txt", "words")
    _error(read_npz, tmp_path / "text.zip")
    _error(read_npz, tmp_path)


def test_raw_bytes_in_the_place_of_values(tmp_path):
    np.savez(tmp_path / "w.npz", cls=np.zeros(3, "V2"))
    assert "cls" in _error(read_npz, tmp_path / "w.npz")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(tmp_path, value):
    arrays = {"cls": np.zeros(3), "head/bias": np.array([0, value]), "step": np.arange(2)}
    np.savez(tmp_path / "w.npz", **arrays)
    message = _error(read_npz, tmp_path / "w.npz")
    assert "head/bias" in message and "cls" not in message


def test_a_write_that_fails_leaves_the_old_files(tmp_path, params, monkeypatch):
    path = tmp_path / "weights.npz"
    write_weights(path, params, DESCRIPTION)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    other = params | {"cls": params["cls"] + 1}

    def fail(*args, **kwargs):
        raise OSError("disk full")

    for module, function in ((os, "replace"), (os, "fsync"), (np, "savez")):
        with monkeypatch.context() as patch:
            patch.setattr(module, function, fail)
            with pytest.raises(OSError, match="disk full"):
                write_weights(path, other, {"step": 4})
        assert {n: (tmp_path / n).read_bytes() for n in os.listdir(tmp_path)} == before


def test_the_description_is_there_before_the_weights(tmp_path, params, monkeypatch):
    seen = []

    def replace(source, destination, original=os.replace):
        seen.append(Path(destination).name)
        assert Path(source).parent == tmp_path
        if Path(destination).suffix == ".npz":
            assert json.loads((tmp_path / "weights.json").read_text()) == DESCRIPTION
        original(source, destination)

    monkeypatch.setattr(os, "replace", replace)
    write_weights(tmp_path / "weights.npz", params, DESCRIPTION)
    assert seen == ["weights.json", "weights.npz"]
