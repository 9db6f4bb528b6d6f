"""The records and crops of a run on several topologies, as arrays, bit for bit."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.real_processes import EIGHT, ONE, TWO_BY_FOUR, Topology, finish, start_on

# A broken image keeps its row with weight 0.
CLASSES, IMAGES_OF_EACH, BROKEN = 3, 100, "train/1/50.png"
RECORDS = CLASSES * IMAGES_OF_EACH
# Small images go through the loader in chunks of 128 rows: three on one process, and two on each
# of two. An epoch ends in the middle of a batch.
BATCH, STEPS = 288, 4
# Data workers, and the steps that are done before.
READINGS = ((0, 0), (0, 2), (1, 2), (3, 0))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of various sizes, so that no two crops are alike."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / "train" / str(label)).mkdir(parents=True)
        for number in range(IMAGES_OF_EACH):
            pixels = rng.integers(0, 256, (*rng.integers(20, 40, 2), 3), np.uint8)
            Image.fromarray(pixels).save(root / "train" / str(label) / f"{number}.png")
    (root / BROKEN).write_bytes(b"junk")
    return root


def join(directory: Path, topology: Topology) -> dict[str, np.ndarray]:
    """Whole arrays by `workers,start/step/name`, of the parts that the processes wrote."""
    files = sorted(directory.glob("*.npz"))
    assert len(files) == topology[0]
    parts: dict[str, dict[int, np.ndarray]] = {}
    for file in files:
        with np.load(file) as arrays:
            assert len({key.rpartition("/")[2] for key in arrays}) == topology[1]
            for key, array in arrays.items():
                name, _, first = key.rpartition("/")
                parts.setdefault(name, {})[int(first)] = array
    firsts = list(range(0, BATCH, BATCH // (topology[0] * topology[1])))
    assert all(sorted(rows) == firsts for rows in parts.values())
    return {name: np.concatenate([rows[i] for i in firsts]) for name, rows in parts.items()}


@pytest.mark.slow
def test_batches_do_not_depend_on_topology_workers_or_start(photos: Path, tmp_path: Path) -> None:
    outputs = {name: tmp_path / f"{name[0]}x{name[1]}" for name in (ONE, EIGHT, TWO_BY_FOUR)}
    command = [
        *(
            sys.executable,
            "-m",
            "tests.programs.read_batches",
            f"--config=configs/pretrain.py:ti16,{photos}",
        ),
        *(f"--config.data.batch_size={BATCH}", f"--config.total_steps={STEPS}"),
        *("--config.optimizer.warmup_steps=0", "--config.model.image_size=(16, 32)"),
        *("--config.data.affine.rotate=15", "--config.data.affine.shift=0.1"),
        *("--config.data.randaugment.magnitude=9", "--config.data.erase=0.5"),
        *("--config.data.on_error=skip", "--config.seed=3"),
        f"--readings={' '.join(f'{workers},{start}' for workers, start in READINGS)}",
    ]
    processes = []
    for topology, output in outputs.items():
        output.mkdir()
        processes += start_on(topology, [*command, f"--output={output}"])
    finish(processes)

    found = {topology: join(output, topology) for topology, output in outputs.items()}
    expected = {
        name: [found[ONE][f"0,0/{step}/{name}"] for step in range(STEPS)]
        for name in ("images", "labels", "weights")
    }
    for topology, arrays in found.items():
        keys = {
            f"{workers},{start}/{step}/{name}": (name, step)
            for workers, start in READINGS
            for step in range(start, STEPS)
            for name in expected
        }
        assert arrays.keys() == keys.keys()
        for key, (name, step) in keys.items():
            message = f"{key} on {topology}"
            np.testing.assert_array_equal(arrays[key], expected[name][step], err_msg=message)

    # And they are the right ones: an epoch holds each record once, and every crop is another.
    images, labels, weights = (np.concatenate(expected[name]) for name in expected)
    assert images.shape == (BATCH * STEPS, 16, 32, 3)
    for first in range(0, len(labels) - RECORDS + 1, RECORDS):
        epoch = slice(first, first + RECORDS)
        assert np.bincount(labels[epoch]).tolist() == [IMAGES_OF_EACH] * CLASSES
        assert labels[epoch][weights[epoch] == 0].tolist() == [1]
    assert not images[weights == 0].any()
    crops = images[weights == 1]
    assert len({crop.tobytes() for crop in crops}) == len(crops)
