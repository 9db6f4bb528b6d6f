import io
import multiprocessing
import os
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image
from sklearn.datasets import load_digits

from tests.data.listed import records_of
from tests.data.tfrecord_data import as_array_record
from vit_jax.data.preparation.prepare import prepare
from vit_jax.data.sources import tfds_records
from vit_jax.data.sources.built_in import prepare_built_in
from vit_jax.data.sources.digits import Digits
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Record
from vit_jax.errors import UserError

Examples = Iterator[tuple[int, dict[str, Any]]]

COLOURS = ("red", "green", "blue")


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


class TwoOfEach(tfds.core.GeneratorBasedBuilder):
    """A mask besides the image, a coarse label besides the label, and text, as in real sets."""

    VERSION = tfds.core.Version("1.0.0")
    SUPERVISED_KEYS: tuple[str, str] | None = ("image", "label")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "a_coarse_label": tfds.features.ClassLabel(names=["warm", "cold"]),
                    "a_mask": tfds.features.Image(shape=(4, 4, 3)),
                    "image": tfds.features.Image(shape=(4, 4, 3)),
                    "label": tfds.features.ClassLabel(names=COLOURS),
                    "text": tfds.features.Text(),
                }
            ),
            supervised_keys=self.SUPERVISED_KEYS,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Examples]:
        return {
            "train": self._generate_examples(range(12)),
            "test": self._generate_examples(range(12, 17)),
        }

    def _generate_examples(self, indices: Iterable[int]) -> Examples:
        for i in indices:
            yield (
                i,
                {
                    "image": png(i),
                    "a_mask": png(200),
                    "label": i % 3,
                    "a_coarse_label": 1,
                    "text": "not read",
                },
            )


class Ambiguous(TwoOfEach):
    VERSION = tfds.core.Version("1.0.0")
    SUPERVISED_KEYS = None


class Unlabelled(TwoOfEach):
    VERSION = tfds.core.Version("1.0.0")

    def _generate_examples(self, indices: Iterable[int]) -> Examples:
        for key, example in super()._generate_examples(indices):
            yield key, example | {"label": -1}


class NeedsTensorflow(TwoOfEach):
    VERSION = tfds.core.Version("1.0.0")

    def _generate_examples(self, indices: Iterable[int]) -> Examples:
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
        yield


class Offline(TwoOfEach):
    VERSION = tfds.core.Version("1.0.0")

    def _split_generators(self, dl_manager: object) -> dict[str, Examples]:
        raise ConnectionError("Failed to resolve\n'example.org'")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def two_of_each(data_dir: str) -> str:
    assert prepare("two_of_each", data_dir) == f"{data_dir}/two_of_each/1.0.0"
    return data_dir


def pixels(record: Record) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record.image)))


def test_digits_are_those_of_scikit_learn(data_dir: str) -> None:
    train = open_source("digits", "train", data_dir=data_dir)
    test = open_source("digits", "test", data_dir=data_dir)
    assert (len(train), len(test)) == (1437, 360)
    assert train.class_names == tuple("0123456789")
    records = records_of(train) + records_of(test)
    assert all(record.image.startswith(b"\x89PNG") for record in records)
    digits = load_digits()
    scaled = np.rint(digits.images * 255 / 16).astype(np.uint8)
    assert scaled.max() == 255
    assert Counter((pixels(r).tobytes(), r.label) for r in records) == Counter(
        (image.tobytes(), label) for image, label in zip(scaled, digits.target, strict=True)
    )


def test_digits_are_split_by_class(data_dir: str) -> None:
    test = Counter(
        record.label for record in records_of(open_source("digits", "test", data_dir=data_dir))
    )
    for label, total in Counter(load_digits().target.tolist()).items():
        assert abs(test[label] - total * 360 / 1797) < 1


def test_digits_slices_and_names(data_dir: str) -> None:
    source = open_source("digits:1.0.0", "train[:98%]+test[10:20]", data_dir=data_dir)
    assert source.name == "digits:1.0.0/train[:98%]+test[10:20]"
    assert len(source) == 1408 + 10  # 98% of 1437 is 1408.26
    assert source[1407].name == "digits:1.0.0/train[1407]"
    assert source[1408].name == "digits:1.0.0/test[10]"
    test = open_source("digits", "test", data_dir=data_dir)
    assert source[1408][:2] == test[10][:2]


def test_digits_go_to_tfds_default_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    assert len(open_source("digits", "test")) == 360
    assert (tmp_path / "digits" / "1.0.0" / "dataset_info.json").exists()


def test_a_process_that_loses_the_race_takes_the_winners_digits(
    data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner, loser = Digits(data_dir=str(tmp_path)), Digits(data_dir=str(tmp_path))
    generate = loser._generate_examples

    def generate_after_the_winner(*arguments: Any) -> Examples:
        prepare_built_in(winner)
        yield from generate(*arguments)

    monkeypatch.setattr(loser, "_generate_examples", generate_after_the_winner)
    prepare_built_in(loser)
    assert len(open_source("digits", "test", data_dir=str(tmp_path))) == 360
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_digits_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write data set 'digits' to .*file/digits/1.0.0"):
        open_source("digits", "train", data_dir=str(tmp_path / "file"))


def test_the_supervised_features_are_read(two_of_each: str) -> None:
    source = open_source("two_of_each", "train", data_dir=two_of_each)
    assert source.class_names == COLOURS
    assert sorted(records_of(source))[0].image == png(0)
    assert {(record.image, record.label) for record in records_of(source)} == {
        (png(i), i % 3) for i in range(12)
    }


def test_indices_outside_raise_index_error(two_of_each: str) -> None:
    source = open_source("two_of_each", "test", data_dir=two_of_each)
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            source[outside]


def test_hidden_labels_are_a_mistake(tmp_path: Path) -> None:
    prepare("unlabelled", str(tmp_path))
    with pytest.raises(UserError, match=r"unlabelled/test\[0\]: label -1 is not one of the 3"):
        open_source("unlabelled", "test", data_dir=str(tmp_path))


def test_ambiguous_features_are_listed(tmp_path: Path) -> None:
    prepare("ambiguous", str(tmp_path))
    with pytest.raises(UserError, match=r"one Image and one ClassLabel .*a_mask \(Image\)"):
        open_source("ambiguous", "train", data_dir=str(tmp_path))


def test_a_source_travels_to_a_spawned_process(two_of_each: str) -> None:
    source = open_source("two_of_each", "train[3:]+test", data_dir=two_of_each)
    records = records_of(source)  # opens the files, which must not travel
    assert len(pickle.dumps(source)) < 1000
    assert records_of(pickle.loads(pickle.dumps(source))) == records
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(records_of, (source,)) == records


def test_prepare_twice_does_nothing(two_of_each: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoOfEach, "_split_generators", None)
    assert prepare("two_of_each", two_of_each) == f"{two_of_each}/two_of_each/1.0.0"


def test_unprepared_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_source("cifar10", "train", data_dir=str(tmp_path))
    assert str(caught.value) == (
        f"data set 'cifar10' is not prepared in {tmp_path}; "
        f"run: python -m vit_jax prepare --dataset=cifar10 --data_dir={tmp_path}"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cifar1O", "unknown TFDS data set 'cifar1O'; did you mean 'cifar10'"),
        ("cifar10/nope", "BuilderConfig nope not found"),
        ("cifar10:9.9.9", "cannot be loaded at version 9.9.9, only: 3.0.2"),
        ("no such", "Parsing builder name string no such failed"),
    ],
)
def test_unknown_names_are_one_line(name: str, reason: str, tmp_path: Path) -> None:
    for use in (prepare, lambda n, d: open_source(n, "train", data_dir=d)):
        with pytest.raises(UserError, match=reason) as caught:
            use(name, str(tmp_path))
        assert "\n" not in str(caught.value)


def test_another_file_format_is_refused(tmp_path: Path) -> None:
    # Its writer is not installed, so the description alone says that it was done.
    info = Path(prepare("two_of_each", str(tmp_path)), "dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "riegeli"))
    for use in (prepare, lambda n, d: open_source(n, "train", data_dir=d)):
        with pytest.raises(UserError, match="prepared as riegeli.* vit_jax prepare --dataset=two"):
            use("two_of_each", str(tmp_path))


def test_tensorflow_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pip install 'vit_jax\[prepare\]'"):
        prepare("needs_tensorflow", str(tmp_path))


def test_no_network_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Failed to resolve 'example.org'; check the network"):
        prepare("offline", str(tmp_path))


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The directory of the digits, prepared."""
    open_source("digits", "test", data_dir=str(tmp_path))
    return tmp_path / "digits/1.0.0"


def test_a_damaged_record_is_told_and_the_others_are_read(prepared: Path) -> None:
    before = records_of(open_source("digits", "test", data_dir=str(prepared.parents[1])))
    (shard,) = prepared.glob("*-test.array_record*")
    data = bytearray(shard.read_bytes())
    data[20_000] ^= 1  # Its end is padding.
    shard.write_bytes(data)
    after = records_of(open_source("digits", "test", data_dir=str(prepared.parents[1])))
    told = [i for i, record in enumerate(after) if record.problem is not None]
    assert 1 <= len(told) < len(after) == len(before)
    assert all("cannot read the record" in (after[i].problem or "") for i in told)
    assert all(after[i] == before[i] for i in range(len(before)) if i not in told)


def test_a_missing_shard_is_named(prepared: Path) -> None:
    (shard,) = prepared.glob("*-test.array_record*")
    shard.unlink()
    with pytest.raises(UserError, match="test.array_record.* is missing or no file"):
        open_source("digits", "test", data_dir=str(prepared.parents[1]))


def test_a_shard_of_other_records_is_refused(prepared: Path) -> None:
    (shard,) = prepared.glob("*-test.array_record*")
    (other,) = prepared.glob("*-train.array_record*")
    shard.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match="1437 records, but dataset_info.json states 360"):
        open_source("digits", "test", data_dir=str(prepared.parents[1]))


def test_a_shard_without_its_end_is_refused(prepared: Path) -> None:
    (shard,) = prepared.glob("*-test.array_record*")
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(UserError, match="test.array_record.*: not a whole shard"):
        open_source("digits", "test", data_dir=str(prepared.parents[1]))


def test_shards_are_opened_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Counted(ArrayRecordReader):
        def __init__(self, path: str, *args: Any, **kwargs: Any) -> None:
            opened.append(path)
            super().__init__(path, *args, **kwargs)

    monkeypatch.setattr(tfds_records, "ArrayRecordReader", Counted)
    as_array_record(tmp_path)
    first, second = sorted((tmp_path / "swatches/1.0.0").glob("*-train.*"))
    source = open_source("swatches", "train", data_dir=str(tmp_path))
    assert opened == [str(first)]
    before = records_of(pickle.loads(pickle.dumps(source)))
    assert opened == [str(first), str(first), str(second)]
    only_second = open_source("swatches", "train[8:]", data_dir=str(tmp_path))
    assert opened[3:] == [str(second)]
    assert records_of(only_second) == before[8:]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("cut", r"train.*-00001-of-00002: not a whole shard \(its end is missing"),
        ("of other records", "train.*-00001-of-00002: 8 records, but .* states 7"),
        ("gone", r"train.*-00001-of-00002: not a whole shard \(it is gone"),
    ],
)
def test_a_damaged_shard_that_is_not_the_first_is_told_with_its_records(
    damage: str, told: str, tmp_path: Path
) -> None:
    as_array_record(tmp_path)
    before = records_of(open_source("swatches", "train", data_dir=str(tmp_path)))
    first, second = sorted((tmp_path / "swatches/1.0.0").glob("*-train.*"))
    source = open_source("swatches", "train", data_dir=str(tmp_path))
    if damage == "cut":
        os.truncate(second, second.stat().st_size // 2)
    elif damage == "gone":  # After the opening, which would name it.
        second.unlink()
    else:
        second.write_bytes(first.read_bytes())
    after = records_of(source)
    assert after[:8] == before[:8]
    assert len(after) == 15
    for record in after[8:]:
        assert re.search(told, record.problem or "")


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_a_pipe_among_the_files_is_refused(prepared: Path, file: str) -> None:
    (prepared / file).unlink()
    os.mkfifo(prepared / file)
    with pytest.raises(UserError, match=f"{file} is no ordinary file"):
        open_source("digits", "test", data_dir=str(prepared.parents[1]))
