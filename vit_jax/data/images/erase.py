"""Random erasing (Zhong et al., arXiv 1708.04896): a box of an image becomes noise.

On the host, where only the erased pixels are drawn; the device would draw noise for all of them.
"""

import math

import numpy as np
from numpy.random import Generator

# timm's. The paper has up to 0.4 of the area, and the same aspects.
_AREA = (0.02, 1 / 3)
_LOG_ASPECT = (math.log(0.3), math.log(1 / 0.3))
_ATTEMPTS = 10


def random_erase(image: np.ndarray, rng: Generator, probability: float) -> np.ndarray:
    """Fills a box of uint8 [height, width, 3] with uniform noise in each value, or does nothing.

    The box's area is uniform among the allowed shares, and its aspect in the logarithm. One that
    does not fit is drawn anew, at most ten times.
    """
    # At 0 nothing is drawn, as if this were not here.
    if not probability or rng.random() >= probability:
        return image
    height, width = image.shape[:2]
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*_AREA) * height * width
        aspect = math.exp(rng.uniform(*_LOG_ASPECT))
        box_height, box_width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_height < height and 0 < box_width < width:
            top = rng.integers(height - box_height, endpoint=True)
            left = rng.integers(width - box_width, endpoint=True)
            image = image.copy()
            image[top : top + box_height, left : left + box_width] = rng.integers(
                256, size=(box_height, box_width, image.shape[2]), dtype=np.uint8
            )
            break
    return image
