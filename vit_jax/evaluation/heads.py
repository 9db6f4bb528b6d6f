"""Whether a head fits other data: names decide, and never positions alone where names are known."""

import dataclasses
import logging
from collections.abc import Sequence

from flax import traverse_util

from vit_jax.evaluation.class_names import ClassNames
from vit_jax.weights.files import Weights
from vit_jax.weights.stored import lazily

_log = logging.getLogger(__name__)


def with_head_for(weights: Weights, names: Sequence[str], num_classes: int) -> Weights:
    """Gives weights the head with which training on other data starts.

    A head of another number of classes is left as it is: it is replaced for its shape anyway. One
    that knows all classes of the data by name is kept, its classes in the order of the data's. One
    of other classes is dropped. Where nothing names its classes it is kept as it is, and a line
    says so.

    Args:
      weights: as opened.
      names: the data's classes, in the order of its labels.
      num_classes: of the model that is trained, at least as many.
    """
    if not num_classes or weights.model.num_classes != num_classes:
        return weights
    if weights.class_names is None:
        _log.warning(
            "%s: nothing names the %d classes of its head; it is kept, and its classes are taken "
            "for the data's in their order (%s, ...)",
            *(weights.path, num_classes, names[0]),
        )
        return weights
    order = head_order(weights.class_names, names)
    if order is None:
        _log.info(
            "%s: its head has other classes (%s, ...) than the data (%s, ...), and starts anew",
            *(weights.path, weights.class_names[0], names[0]),
        )
        return _without_head(weights)
    if order == tuple(range(num_classes)):
        return weights
    _log.info("%s: the classes of its head are put into the data's order", weights.path)
    rows = list(order)
    flat = traverse_util.flatten_dict(weights.params, sep="/")
    for leaf in ("head/kernel", "head/bias"):
        if leaf in flat:
            flat[leaf] = lazily(flat[leaf], lambda x: x[..., rows])
    return dataclasses.replace(
        weights,
        params=traverse_util.unflatten_dict(flat, sep="/"),
        class_names=tuple(weights.class_names[row] for row in rows),
    )


def head_order(head: Sequence[str], names: Sequence[str]) -> tuple[int, ...] | None:
    """Which of the head's classes each class of the data is, and after these the others.

    None if a class of the data is none of the head's or may be several, or if two are the same.

    Args:
      head: names of the head's classes.
      names: of the data's classes.
    """
    if tuple(head) == tuple(names):  # Even if some of them have one name.
        return tuple(range(len(head)))
    known = ClassNames(head)
    found = [known.find(name) for name in names]
    if any(len(labels) != 1 for labels in found):
        return None
    order = [label for (label,) in found]
    if len(set(order)) < len(order):
        return None
    return (*order, *(label for label in range(len(head)) if label not in set(order)))


def _without_head(weights: Weights) -> Weights:
    params = {name: part for name, part in weights.params.items() if name != "head"}
    model = dataclasses.replace(weights.model, num_classes=0)
    return dataclasses.replace(weights, params=params, model=model, class_names=None)
