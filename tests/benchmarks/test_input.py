"""The benchmark of decoding and resizing: its reference, and that all ways make the same image."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import distance, noise

pytest.importorskip("cv2")
pytest.importorskip("simplejpeg")

from benchmarks import input as benchmark
from vit_jax.data.images.jpeg import crop


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(300, 411), (60, 90)])
def test_its_reference_is_jax_image_resize(antialias: bool, size: tuple[int, int]) -> None:
    image = noise(*size)
    found = benchmark.exact(image, antialias=antialias)
    wanted = jax.image.resize(
        image.astype(np.float32), (*benchmark.SIZE, 3), "linear", antialias=antialias
    )
    assert distance(found, wanted) < 0.01


@pytest.mark.parametrize("antialias", [False, True])
def test_all_ways_make_nearly_the_same_image(antialias: bool) -> None:
    (file, _) = benchmark.pictures(None, 2)
    whole = np.asarray(Image.open(io.BytesIO(file)))
    assert whole.shape == (375, 500, 3)
    for box in ((30, 40, 330, 280), (17, 5, 117, 95)):
        wanted = benchmark.exact(crop(whole, box), antialias=antialias)
        for way in benchmark.ways(antialias).values():
            # Pillow's transform cuts fractions off, and its resize rounds after each axis.
            assert distance(way(file, box), wanted) <= 1.01
