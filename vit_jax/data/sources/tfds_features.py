"""Which features of a TFDS data set are the images and their labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from vit_jax.data.sources.tfds_known import UnreadFeature
from vit_jax.errors import UserError
from vit_jax.spelling import nearest


class LabelledImages(NamedTuple):
    """The features that are read from each example.

    Attributes:
      image: its key.
      label: its key; `objects/label` for a label in a sequence of several features.
      class_names: in the order of the data.
      is_sequence: whether an example has any number of labels instead of one.
    """

    image: str
    label: str
    class_names: tuple[str, ...]
    is_sequence: bool

    def partial(self, features: Any) -> Any:
        """Image and label as features, so that nothing else is parsed."""
        # `PartialDecoding` would have TensorFlow compare the types.
        key, _, inner = self.label.partition("/")
        label = features[key]
        if inner:
            label = type(label)({inner: label.feature[inner]})
        return tfds.features.FeaturesDict({self.image: features[self.image], key: label})

    def labels(self, example: dict[str, Any]) -> tuple[int, ...]:
        """The labels of an example that was read with `partial`, each once."""
        key, _, inner = self.label.partition("/")
        found = example[key]
        if not self.is_sequence:
            return (int(found),)
        if inner:  # A sequence of features is a dict of arrays; a nested data set holds dicts.
            found = found[inner] if isinstance(found, dict) else (each[inner] for each in found)
        return tuple(dict.fromkeys(int(label) for label in found))


def labelled_images(dataset: str, info: Any, label: str | None) -> LabelledImages:
    """Chooses the features: `label`, otherwise TFDS's supervised keys, otherwise the only ones.

    Raises:
      UserError: `label` is neither a ClassLabel nor a sequence of them, or the choice is not clear.
    """
    features = info.features
    if isinstance(features, UnreadFeature):
        raise UserError(
            f"data set {dataset!r}: its features are in no known form; prepare it again"
        )
    images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
    labels = _class_labels(features)
    if label is not None and label not in labels:
        raise UserError(
            f"data set {dataset!r} has no label {label!r}, a ClassLabel or a sequence of them"
            f"{nearest(label, labels)}"
        )
    named = [key for key in info.supervised_keys or () if isinstance(key, str)]
    image = _only([key for key in named if key in images]) or _only(images)
    if label is None:
        label = _only([key for key in named if key in labels])
    if label is None:
        single = [key for key, (_, is_sequence) in labels.items() if not is_sequence]
        label = _only(single or list(labels))
    if image is None or label is None:
        listed = ", ".join(f"{name} ({_kind(f)})" for name, f in features.items())
        chosen = f" among {', '.join(sorted(labels))}" if labels else ""
        raise UserError(
            f"data set {dataset!r} does not have one Image and one ClassLabel feature, but "
            f"{listed}; choose the label with --config.data.label{chosen}, or use a data set of "
            "labelled images"
        )
    found, is_sequence = labels[label]
    if found.num_classes is None:
        raise UserError(f"data set {dataset!r}: its label {label!r} has no classes")
    return LabelledImages(image, label, tuple(found.names), is_sequence)


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


def _kind(feature: Any) -> str:
    return feature.kind if isinstance(feature, UnreadFeature) else type(feature).__name__


def _only(keys: list[str]) -> str | None:
    return keys[0] if len(keys) == 1 else None
