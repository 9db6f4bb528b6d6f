"""Makes the data set `swatches` beside this file, by TensorFlow itself, in both of TFDS's formats.

    python3.11 -m venv /tmp/tf
    /tmp/tf/bin/pip install tensorflow-cpu==2.19.0 tensorflow-datasets==4.9.10 \
        "tensorflow-metadata<1.18" pillow
    cd tests/data/by_tensorflow && /tmp/tf/bin/python make.py

The tests read what lies here and never run this. `tf.data` reads the TFRecord files back, and
`expected.json` keeps what it found.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

HERE = Path(__file__).parent
NAMES = ["red", "green", "blue"]


class Swatches(tfds.core.GeneratorBasedBuilder):
    """Images of one colour, every other one a JPEG, with a label, a list of labels and text."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=NAMES),
                    "hues": tfds.features.Sequence(tfds.features.ClassLabel(names=NAMES)),
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(0, 15), "test": self._generate_examples(15, 21)}

    def _generate_examples(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in range(start, stop):
            image = io.BytesIO()
            colour = tuple(60 + 9 * i if band == i % 3 else 20 for band in range(3))
            Image.new("RGB", (8 + i, 12), colour).save(image, "JPEG" if i % 2 else "PNG")
            yield (
                i,
                {
                    "image": image.getvalue(),
                    "label": i % 3,
                    "hues": [hue for hue in range(3) if i & (1 << hue)],
                    "file_name": f"{i:03}",
                },
            )


def main() -> None:
    for form in ("tfrecord", "array_record"):
        builder = Swatches(data_dir=str(HERE / form), file_format=form)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    builder = Swatches(data_dir=str(HERE / "tfrecord"), file_format="tfrecord")
    expected = {}
    for split in ("train", "test", "train[3:12]+test[:50%]"):
        dataset = builder.as_dataset(
            split=split,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
        )
        expected[split] = [
            {
                "sha256": hashlib.sha256(example["image"]).hexdigest(),
                "label": int(example["label"]),
                "hues": example["hues"].tolist(),
            }
            for example in tfds.as_numpy(dataset)
        ]
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
