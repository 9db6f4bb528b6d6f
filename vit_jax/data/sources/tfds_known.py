"""Reads the features that a data set's `features.json` describes, as data.

TFDS imports whatever module the file names. A data set may come from someone else, or be named by
the config of a run that does; so only the features that training needs are made here, and any
other one becomes an `UnreadFeature`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_Connector: Any = tfds.features.FeatureConnector
# The classes are swapped for the whole process, so one thread at a time.
_lock = threading.RLock()


class UnreadFeature(tfds.features.FeatureConnector):
    """A feature of any other kind, of which nothing is read but its name."""

    kind = ""

    def get_tensor_info(self) -> Any:
        """The form of a value, which TFDS wants to know."""
        return tfds.features.TensorInfo(shape=(), dtype=np.object_)

    def encode_example(self, example_data: Any) -> Any:
        """Such a feature is never written."""
        raise NotImplementedError

    @classmethod
    def from_json_content(cls, value: Any) -> UnreadFeature:
        """Makes the feature; what describes it is not looked at."""
        del value
        return cls()

    def to_json_content(self) -> Any:
        """Such a feature is never written."""
        raise NotImplementedError


class _ClassLabel(tfds.features.ClassLabel):
    """Takes its names from the data set's own directory alone."""

    @classmethod
    def from_json_content(cls, value: Any) -> Any:
        # TFDS would take all arguments from older files, `names_file` too.
        if isinstance(value, dict):
            return cls(**{key: value[key] for key in ("num_classes", "names") if key in value})
        return super().from_json_content(value)


def _name_of(feature: type[Any]) -> str:
    return f"{feature.__module__}.{feature.__name__}"


_KNOWN = {
    _name_of(feature): feature
    for feature in (
        *(tfds.features.FeaturesDict, tfds.features.Image),
        *(tfds.features.Sequence, tfds.features.Dataset, tfds.features.Tensor),
    )
} | {_name_of(tfds.features.ClassLabel): _ClassLabel}


def _class_from_name(cls: type[Any], name: str) -> type[Any]:
    """In the place of `FeatureConnector.cls_from_name`, which imports the module of the name."""
    del cls
    known = _KNOWN.get(name)
    if known is not None:
        return known
    return type("UnreadFeature", (UnreadFeature,), {"kind": name.rpartition(".")[2]})


@contextlib.contextmanager
def only_known_features() -> Iterator[None]:
    """While this is open, TFDS reads known features only, and imports nothing for them."""
    with _lock:
        before = _Connector.__dict__["cls_from_name"]
        _Connector.cls_from_name = classmethod(_class_from_name)
        try:
            yield
        finally:
            _Connector.cls_from_name = before
