"""Labels that are computed from the features of a TFDS data set, and images that are rescaled.

The rules are those of VTAB (arXiv 1910.04867) as its authors' code has them
(google-research/task_adaptation). `config.data.label` takes their names, as it takes a feature's.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from vit_jax.data.sources.built_in import png

# Distances that bound the classes; a distance belongs to the last bound that lies below it.
_CLEVR_BOUNDS = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
_KITTI_BOUNDS = (-100.0, 8.0, 20.0, 999.0)
# Where an image of KITTI shows no vehicle.
_FAR = 1000.0
# Car, Van and Truck are the first types.
_VEHICLES = 3
_FEWEST_OBJECTS, _MOST_OBJECTS = 3, 10
_BINS = 16
_POSITIONS, _ORIENTATIONS = 32, 40


class ComputedLabel(NamedTuple):
    """A label that follows from other features.

    Attributes:
      features: keys of what it is computed from; `objects/type` is in a sequence of features.
      class_names: in the order of the labels.
      rule: takes the values of `features`, arrays with a row for each element of a sequence.
    """

    features: tuple[str, ...]
    class_names: tuple[str, ...]
    rule: Callable[..., int]


def clevr_count(pixel_coords: np.ndarray) -> int:
    """The number of objects, counted from 3.

    Args:
      pixel_coords: float32 [objects, 3].
    """
    return len(pixel_coords) - _FEWEST_OBJECTS


def clevr_distance(pixel_coords: np.ndarray) -> int:
    """The class of the distance from the camera to the nearest object.

    Args:
      pixel_coords: float32 [objects, 3]; the third is the distance.
    """
    return _last_below(_CLEVR_BOUNDS, min(pixel_coords.reshape(-1, 3)[:, 2], default=0.0))


def kitti_distance(types: np.ndarray, locations: np.ndarray) -> int:
    """The class of the distance to the nearest vehicle; the last one is that there is none.

    Args:
      types: integers [objects].
      locations: float32 [objects, 3] in metres from the camera; the third is the distance.
    """
    distances = locations.reshape(-1, 3)[types < _VEHICLES, 2]
    return _last_below(_KITTI_BOUNDS, min(distances, default=_FAR))


def dsprites_location(position: np.ndarray) -> int:
    """The class, of 16, of one of the 32 horizontal positions."""
    return int(position) * _BINS // _POSITIONS


def dsprites_orientation(orientation: np.ndarray) -> int:
    """The class, of 16, of one of the 40 orientations."""
    return int(orientation) * _BINS // _ORIENTATIONS


def full_range(image: bytes) -> bytes:
    """An image of 0 and 1 as one of 0 and 255, as PNG.

    Args:
      image: encoded.
    """
    pixels = np.asarray(Image.open(io.BytesIO(image)))
    return png((pixels > 0).astype(np.uint8) * 255)


def _last_below(bounds: tuple[float, ...], value: float) -> int:
    """The index of the last bound that lies below a value; -1 if none does."""
    return int(np.searchsorted(bounds, value)) - 1


def _between(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(f"{low:g} to {high:g}" for low, high in itertools.pairwise(bounds))


def _bins(count: int) -> tuple[str, ...]:
    """The values of each of 16 classes of so many."""
    found = [[value for value in range(count) if value * _BINS // count == b] for b in range(_BINS)]
    return tuple(f"{values[0]} to {values[-1]}" for values in found)


# By the name of the TFDS data set, then by that of the label.
COMPUTED_LABELS: Mapping[str, Mapping[str, ComputedLabel]] = {
    "clevr": {
        "count": ComputedLabel(
            ("objects/pixel_coords",),
            tuple(map(str, range(_FEWEST_OBJECTS, _MOST_OBJECTS + 1))),
            clevr_count,
        ),
        "distance": ComputedLabel(
            ("objects/pixel_coords",), _between(_CLEVR_BOUNDS), clevr_distance
        ),
    },
    "kitti": {
        "distance": ComputedLabel(
            ("objects/type", "objects/location"),
            ("below 8 m", "8 to 20 m", "above 20 m", "no vehicle"),
            kitti_distance,
        ),
    },
    "dsprites": {
        "location": ComputedLabel(("label_x_position",), _bins(_POSITIONS), dsprites_location),
        "orientation": ComputedLabel(
            ("label_orientation",), _bins(_ORIENTATIONS), dsprites_orientation
        ),
    },
}
# Data sets whose pixels are 0 and 1.
BINARY_IMAGES = frozenset({"dsprites"})
