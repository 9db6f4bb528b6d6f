"""ReaL: any of an image's labels is right, and images without labels are not counted."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation.label_set_cases import judged, opener, source_of, write_folders
from tests.small_models import refusal
from vit_jax.evaluation.label_sets import real
from vit_jax.evaluation.label_sets.real import ImageNetRealConfig, ReassessedLabels, read_labels
from vit_jax.inference.requests import Answer
from vit_jax.weights.catalogue import download
from vit_jax.weights.classes import imagenet_synsets

# The first five as in the published file, all others without a label.
LABELS = json.dumps([[], [970, 795], [230, 231], [809], [516, 850], *[[]] * 49_995]).encode()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(real, "SHA256", hashlib.sha256(LABELS).hexdigest())
    path = tmp_path / "real.json"
    path.write_bytes(LABELS)
    return path


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """Five images in two folders, listed in another order than their numbers."""
    names = {"n01440764": (5, 1), "n01443537": (3, 2, 4)}
    files = [f"{f}/ILSVRC2012_val_{n:08}.JPEG" for f, numbers in names.items() for n in numbers]
    return write_folders(tmp_path / "val", files)


def order(evaluator: Any) -> list[int]:
    source: Any = source_of(evaluator)
    return [int(path[-13:-5]) for path in source.paths()]


def logits(evaluator: Any, best: dict[int, list[int]]) -> np.ndarray:
    """The best classes of each image, by its number."""
    values = np.zeros((5, 1000), np.float32)
    for row, number in enumerate(order(evaluator)):
        values[row, best[number]] = np.arange(len(best[number]), 0, -1)
    return values


def test_labels_follow_the_number_of_the_file(val: Path, file: Path) -> None:
    each: Any = ImageNetRealConfig("all", labels=str(file)).make(opener("imagenet_real", val))
    # Image 1 has no label; 2 and 5 have two, of which the second is best; 3 is right at second.
    best = {1: [7], 2: [795], 3: [8, 230], 4: [1, 2, 3, 4, 5, 809], 5: [850]}
    found = judged(each, logits(each, best))
    assert found.values == {"top1": 2 / 4, "top5": 3 / 4, "examples": 4}
    assert "over all 1,000 logits; images without labels, not counted: 1" in found.line


def test_unreadable_images_shift_no_label() -> None:
    class Source(list[int]):
        name = "val"

    source: Any = Source()
    each = ReassessedLabels(source, [[1], [2], [3]], np.arange(5), "x")
    rows = {"best": np.array([[1], [3]])}
    answer = Answer({"not_finite": 0.0}, rows, np.array([0, 2]))
    assert each.scores({"test": answer}).values["top1"] == 1
    answer = answer._replace(sums={"not_finite": 2.0})
    assert "not finite for 2 of the images" in refusal(each.scores, {"test": answer})


def test_a_head_of_other_order_and_images_without_folders(tmp_path: Path, file: Path) -> None:
    files = [f"ILSVRC2012_val_{n:08}.JPEG" for n in (2, 3, 1, 4, 5)]
    flat = write_folders(tmp_path / "flat", files)
    turned = imagenet_synsets()[::-1]
    config = ImageNetRealConfig("all", labels=str(file))
    each: Any = config.make(opener("imagenet_real", flat, turned))
    best = {1: [7], 2: [999 - 795], 3: [999 - 230], 4: [809], 5: [999 - 516]}
    assert order(each) == [1, 2, 3, 4, 5]
    assert judged(each, logits(each, best)).values["top1"] == 3 / 4


def test_other_files_of_labels_are_refused(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other.json"
    for content, message in {
        b"[[1], [2]]": "holds 2 lists and not 50,000; give real.json",
        b'{"a": 1}': "holds no list and not 50,000",
        LABELS.replace(b"970", b"971"): "so these are other labels; give real.json",
        b"\xff\xd8\xff": "cannot be read as ReaL's labels",
    }.items():
        other.write_bytes(content)
        assert message in refusal(read_labels, other)
    assert read_labels(file)[1] == [970, 795]
    assert "No such file" in refusal(read_labels, tmp_path / "none.json")


def test_other_images_are_refused(tmp_path: Path, file: Path) -> None:
    config = ImageNetRealConfig("all", labels=str(file))
    for number, name in enumerate(("cat.jpg", "ILSVRC2012_val_00050001.JPEG")):
        folder = write_folders(tmp_path / str(number) / "val", [f"n01440764/{name}"])
        message = refusal(config.make, opener("imagenet_real", folder))
        assert "must hold ImageNet's validation images, ILSVRC2012_val_00000001.JPEG" in message
    (tmp_path / "empty").mkdir()
    assert "it holds no images" in refusal(config.make, opener("imagenet_real", tmp_path / "empty"))
    copies = [f"n0144076{digit}/ILSVRC2012_val_00000007.JPEG" for digit in (4, 5)]
    folder = write_folders(tmp_path / "twice" / "val", copies)
    message = refusal(config.make, opener("imagenet_real", folder))
    assert "holds validation image 7 more than once (numbers that are there twice: 1)" in message
    names = imagenet_synsets()[:10]
    message = refusal(config.make, opener("imagenet_real", folder, names, num_classes=10))
    assert "990 of the 1,000 classes of ImageNet are none of the head's 10" in message


def test_data_without_file_names_are_refused() -> None:
    class Source(list[int]):
        name = "imagenet2012/validation"

    source: Any = Source()
    message = refusal(real.image_numbers, source, "evaluation x")
    assert "--dataset=imagenet2012_real --label=real_label" in message


# Downloads, from a server on this machine.


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[bytes]]:
    """What the server sends, one after the other; the last one for ever."""
    contents: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = contents.pop(0) if len(contents) > 1 else contents[0]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(real, "URL", f"http://127.0.0.1:{server.server_port}/real.json")
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.001, 0.001))
    yield contents
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("file")
def test_labels_are_downloaded_once_and_checked(
    val: Path, served: list[bytes], tmp_path: Path
) -> None:
    config, given = ImageNetRealConfig("all"), opener("imagenet_real", val)
    cached = tmp_path / "cache/label_sets/imagenet_real_labels.json"
    served[:] = [LABELS[:1000], LABELS, b"nothing, any more"]
    assert judged(config.make(given), np.eye(5, 1000, dtype=np.float32)).values["examples"] == 4
    assert cached.read_bytes() == LABELS
    config.make(given)  # From the cache.
    cached.write_bytes(LABELS.replace(b"970", b"971"))
    message = refusal(config.make, given)
    assert "has the SHA-256" in message and f"put the file at {cached} yourself" in message
    assert message.endswith("or give --labels=FILE")
    served[:] = [LABELS]
    config.make(given)
    assert cached.read_bytes() == LABELS


@pytest.mark.usefixtures("file")
def test_another_file_at_the_address_is_not_kept(
    val: Path, served: list[bytes], tmp_path: Path
) -> None:
    served[:] = [LABELS.replace(b"970", b"971")]
    message = refusal(ImageNetRealConfig("all").make, opener("imagenet_real", val))
    assert f"and not {real.SHA256}" in message
    assert not (tmp_path / "cache/label_sets/imagenet_real_labels.json").exists()
