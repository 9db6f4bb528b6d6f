"""Images of test sets are found among others, and nothing else is."""

import io
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from tests.data import archives
from tests.data.listed import Listed, records_of
from vit_jax.data.preparation import twins
from vit_jax.data.preparation.prepare import prepare
from vit_jax.data.preparation.twins import THRESHOLD, hash_test_sets, nearest, perceptual_hash
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Record
from vit_jax.errors import UserError


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def encoded(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_the_hash_has_the_bits_of_imagehash() -> None:
    for seed in range(5):
        image = opened(archives.photo(seed, 120, 160))
        bits = imagehash.phash(image, hash_size=16).hash
        assert (np.unpackbits(perceptual_hash(image).view(np.uint8)) == bits.reshape(-1)).all()


def test_the_nearest_is_found_as_by_comparing_all() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (300, 4), np.uint64)
    for trial in range(200):
        wanted = hashes[rng.integers(300)].copy()
        for bit in rng.choice(256, int(rng.integers(0, 40)), replace=False):
            wanted[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
        distances = [sum(int(x).bit_count() for x in row) for row in hashes ^ wanted]
        best = min(range(300), key=distances.__getitem__)
        found = nearest(np.ascontiguousarray(hashes.T), wanted)
        assert found == ((best, distances[best]) if distances[best] <= THRESHOLD else None), trial


def test_copies_are_left_out_and_listed(tmp_path: Path) -> None:
    """Test images that were encoded again, reduced or squeezed, among others."""
    for i in range(6):
        place = tmp_path / f"set/test/{'ab'[i % 2]}"
        place.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"set/train/{'ab'[i % 2]}").mkdir(parents=True, exist_ok=True)
        (place / f"{i}.jpg").write_bytes(archives.photo(500 + i, 200, 240))
        train = archives.photo(600 + i, 200, 240)
        (tmp_path / f"set/train/{'ab'[i % 2]}/{i}.jpg").write_bytes(train)
    of = archives.images(5)
    image = opened(archives.photo(503, 200, 240))
    copies = {
        "same.JPEG": archives.photo(500, 200, 240),
        "again.JPEG": encoded(image, 40),
        "small.JPEG": encoded(image.resize((77, 64), Image.Resampling.BICUBIC), 80),
        "square.JPEG": encoded(image.resize((224, 224), Image.Resampling.BILINEAR), 90),
    }
    name = next(iter(of))
    of[name] = of[name] | copies
    archives.write_fall_2011(tmp_path, of)
    excluded = f"{tmp_path}/set/test"
    directory = prepare(
        "imagenet21k", str(tmp_path / "data"), archives=str(tmp_path), exclude=[excluded]
    )
    source = open_source("imagenet21k", "full", data_dir=str(tmp_path / "data"))
    assert sorted(r.image for r in records_of(source)) == sorted(
        data for files in archives.images(5).values() for data in files.values()
    )
    test = open_source(f"{tmp_path}/set", "test")
    names = {Path(r.name).name: f"{test.name}[{i}]" for i, r in enumerate(records_of(test))}
    rows = [line.split(",") for line in (Path(directory) / "left_out.csv").read_text().splitlines()]
    assert sorted((row[1], row[4]) for row in rows[1:]) == sorted(
        (f"{name}/{copy}", names["0.jpg" if copy == "same.JPEG" else "3.jpg"]) for copy in copies
    )
    with pytest.raises(UserError, match="was prepared with no --short_side, --exclude="):
        prepare("imagenet21k", str(tmp_path / "data"), archives=str(tmp_path))


def test_several_sets_are_told_apart(tmp_path: Path) -> None:
    first = Listed([Record(archives.photo(i), 0, str(i)) for i in range(3)])
    second = Listed([Record(archives.photo(i), 0, str(i)) for i in range(10, 12)])
    second.name = "other/test"
    broken = Listed([Record(b"nothing", 0, "broken.jpg")])
    sets = hash_test_sets([first, broken, second], tmp_path / "hashes.npy", workers=0)
    assert len(sets) == 6
    for seed, name in ((2, "listed/train[2]"), (11, "other/test[1]")):
        twin = sets.twin(opened(archives.photo(seed)))
        assert twin is not None and twin == (name, 0)
    assert sets.twin(opened(archives.photo(99))) is None


def test_what_is_typed_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives.write_fall_2011(tmp_path, archives.images(2))

    def prepared(exclude: str) -> None:
        prepare("imagenet21k", str(tmp_path), archives=str(tmp_path), exclude=[exclude])

    with pytest.raises(UserError, match="--exclude=cifar10: write DATASET/SPLIT, such as cifar10"):
        prepared("cifar10")
    with pytest.raises(UserError, match="'cifar10' is not prepared"):
        prepared("cifar10/test")
    with pytest.raises(UserError, match="--exclude would be ignored: TFDS writes 'cifar10' as it"):
        prepare("cifar10", str(tmp_path), exclude=["mnist/test"])
    monkeypatch.setitem(__import__("sys").modules, "imagehash", None)
    with pytest.raises(UserError, match=r"run: pip install 'vit_jax\[duplicates\]'"):
        perceptual_hash(opened(archives.photo(0)))
    assert twins.THRESHOLD == 16
