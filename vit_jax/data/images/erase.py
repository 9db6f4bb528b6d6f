"""Random erasing (Zhong et al., arXiv 1708.04896): a box of an image becomes noise.

It runs on the host, where noise is drawn for the erased pixels only. The device would draw it for
all pixels.
"""

import math

import numpy as np
from numpy.random import Generator

# As in timm. The paper erases up to 0.4 of the area, with the same aspects.
_AREA = (0.02, 1 / 3)
_LOG_ASPECT = (math.log(0.3), math.log(1 / 0.3))
_ATTEMPTS = 10


def random_erase(image: np.ndarray, rng: Generator, probability: float) -> np.ndarray:
    """With a probability, fills a box of uint8 [height, width, 3] with uniform noise.

    The box's share of the area is uniform, and so is the logarithm of its aspect. A box that does
    not fit is drawn again, up to ten times; then the image stays as it is.
    """
    # Probability 0 draws nothing, so that it leaves all other draws alone.
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
