"""Which features of a TFDS data set are the images and their labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from vit_jax.data.sources.tfds_known import UnreadFeature
from vit_jax.data.sources.tfds_rules import (
    BINARY_IMAGES,
    COMPUTED_LABELS,
    ComputedLabel,
    full_range,
)
from vit_jax.errors import UserError
from vit_jax.spelling import nearest


class LabelledImages(NamedTuple):
    """The features that are read from each example.

    Attributes:
      image: its key.
      label: its key; `objects/label` for a label in a sequence of several features.
      class_names: in the order of the data.
      is_sequence: whether an example has any number of labels instead of one.
      computed: the rule of a label that is no feature.
      is_binary: whether the pixels are 0 and 1.
    """

    image: str
    label: str
    class_names: tuple[str, ...]
    is_sequence: bool
    computed: ComputedLabel | None = None
    is_binary: bool = False

    def partial(self, features: Any) -> Any:
        """Image and label as features, so that nothing else is parsed."""
        # `PartialDecoding` would have TensorFlow compare the types.
        keys = (self.label,) if self.computed is None else self.computed.features
        inner: dict[str, list[str]] = {}
        for path in keys:
            key, _, name = path.partition("/")
            inner.setdefault(key, []).extend([name] if name else [])
        parts = {
            key: type(features[key])({name: features[key].feature[name] for name in names})
            if names
            else features[key]
            for key, names in inner.items()
        }
        return tfds.features.FeaturesDict({self.image: features[self.image], **parts})

    def encoded(self, example: dict[str, Any]) -> bytes:
        """The encoded image of an example that was read with `partial`."""
        image: bytes = example[self.image]
        return full_range(image) if self.is_binary else image

    def labels(self, example: dict[str, Any]) -> tuple[int, ...]:
        """The labels of an example that was read with `partial`, each once."""
        if self.computed is not None:
            return (self.computed.rule(*(_at(example, key) for key in self.computed.features)),)
        key, _, inner = self.label.partition("/")
        found = example[key]
        if not self.is_sequence:
            return (int(found),)
        if inner:  # A sequence of features is a dict of arrays; a nested data set holds dicts.
            found = found[inner] if isinstance(found, dict) else (each[inner] for each in found)
        return tuple(dict.fromkeys(int(label) for label in found))


def labelled_images(dataset: str, info: Any, label: str | None) -> LabelledImages:
    """Chooses the features: `label`, otherwise TFDS's supervised keys, otherwise the only ones.

    Args:
      label: a feature, or a label that `tfds_rules.py` computes; None if it need not be named.

    Raises:
      UserError: `label` is neither a ClassLabel nor a sequence of them nor computed, or the choice
        is not clear.
    """
    features = info.features
    if isinstance(features, UnreadFeature):
        raise UserError(
            f"data set {dataset!r}: its features are in no known form; prepare it again"
        )
    images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
    labels = _class_labels(features)
    computed = _computed_labels(info)
    if label is not None and label not in (*labels, *computed):
        raise UserError(
            f"data set {dataset!r} has no label {label!r}, a ClassLabel or a sequence of them"
            f"{nearest(label, [*labels, *computed])}"
        )
    named = [key for key in info.supervised_keys or () if isinstance(key, str)]
    image = _only([key for key in named if key in images]) or _only(images)
    is_binary = info.name in BINARY_IMAGES
    if image is not None and label in computed:
        rule = computed[label]
        return LabelledImages(image, label, rule.class_names, False, rule, is_binary)
    if label is None:
        label = _only([key for key in named if key in labels])
    if label is None:
        single = [key for key, (_, is_sequence) in labels.items() if not is_sequence]
        label = _only(single or list(labels))
    if image is None or label is None:
        listed = ", ".join(f"{name} ({_kind(f)})" for name, f in features.items())
        known = sorted([*labels, *computed])
        chosen = f" among {', '.join(known)}" if known else ""
        raise UserError(
            f"data set {dataset!r} does not have one Image and one ClassLabel feature, but "
            f"{listed}; choose the label with --config.data.label{chosen}, or use a data set of "
            "labelled images"
        )
    found, is_sequence = labels[label]
    if found.num_classes is None:
        raise UserError(f"data set {dataset!r}: its label {label!r} has no classes")
    return LabelledImages(image, label, tuple(found.names), is_sequence, None, is_binary)


def _class_labels(features: Any) -> dict[str, tuple[Any, bool]]:
    """All ClassLabels by key, and whether each is in a sequence or nested data set."""
    found: dict[str, tuple[Any, bool]] = {}
    for key, feature in features.items():
        if isinstance(feature, tfds.features.ClassLabel):
            found[key] = feature, False
        elif isinstance(feature, tfds.features.Sequence):
            inner = feature.feature
            if isinstance(inner, tfds.features.ClassLabel):
                found[key] = inner, True
            elif isinstance(inner, tfds.features.FeaturesDict):
                for name, each in inner.items():
                    if isinstance(each, tfds.features.ClassLabel):
                        found[f"{key}/{name}"] = each, True
    return found


def _computed_labels(info: Any) -> dict[str, ComputedLabel]:
    """The labels that can be computed from the features that the data set has."""
    rules = COMPUTED_LABELS.get(info.name, {})
    return {
        name: rule
        for name, rule in rules.items()
        if all(_has(info.features, path) for path in rule.features)
    }


def _has(features: Any, path: str) -> bool:
    key, _, inner = path.partition("/")
    if key not in features or not inner:
        return key in features
    found = getattr(features[key], "feature", None)
    return isinstance(found, tfds.features.FeaturesDict) and inner in found


def _at(example: dict[str, Any], path: str) -> np.ndarray:
    """A value of an example; in a sequence of features, an array with a row for each element."""
    key, _, inner = path.partition("/")
    return np.asarray(example[key][inner] if inner else example[key])


def _kind(feature: Any) -> str:
    return feature.kind if isinstance(feature, UnreadFeature) else type(feature).__name__


def _only(keys: list[str]) -> str | None:
    return keys[0] if len(keys) == 1 else None
