"""The data set that TensorFlow has prepared, and the same as ArrayRecord."""

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter

BY_TENSORFLOW = Path(__file__).parent / "by_tensorflow"
# What tf.data reads, by split.
EXPECTED: dict[str, list[dict[str, Any]]] = json.loads(
    (BY_TENSORFLOW / "expected.json").read_text()
)


def copy_tfrecord(data_dir: Path) -> Path:
    """Copies the data set; returns the directory of its files."""
    shutil.copytree(BY_TENSORFLOW / "tfrecord", data_dir, dirs_exist_ok=True)
    return data_dir / "swatches/1.0.0"


def payloads(file: Path) -> Iterator[bytes]:
    """What the records of a TFRecord file hold, read from its start to its end."""
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + length]
        data = data[16 + length :]


def as_array_record(data_dir: Path) -> None:
    """Makes the same data set as ArrayRecord: the same examples in the same shards."""
    directory = copy_tfrecord(data_dir)
    for file in directory.glob("*.tfrecord-*"):
        path = file.with_name(file.name.replace("tfrecord", "array_record"))
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for payload in payloads(file):
            writer.write(payload)
        writer.close()
        file.unlink()
    info = directory / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', '"array_record"'))
