"""What tests of several commands read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.named_photos import write


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("weights") / "w.npz")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images, of which four cannot be read, in a folder with other things."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deep/er").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in {"b.png": (20, 30), "c.JPG": (64, 48), "deep/er/e.webp": (16, 16)}.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    (folder / "a.png").write_bytes((folder / "b.png").read_bytes()[:500])
    (folder / "d.jpg").touch()
    (folder / "deep/f.gif").write_text("not an image")
    (folder / "g.png").symlink_to(folder / "gone.png")
    (folder / "notes.txt").write_text("not named like an image")
    (folder / ".hidden.png").write_bytes((folder / "b.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the tests of a file find the data sets that one of them prepared."""
    return tmp_path_factory.mktemp("data")
