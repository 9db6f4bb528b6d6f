"""Which of ImageNet's classes a data set's folders are, and which logits of a head they are."""

from collections.abc import Sequence
from importlib import resources

import jax.numpy as jnp
from jax import Array

from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.evaluation.class_names import ClassNames
from vit_jax.evaluation.context import Opener
from vit_jax.inference.requests import Arrays
from vit_jax.losses import weighted_sum
from vit_jax.weights.classes import imagenet_names

_LISTED_AT_MOST = 5


def read_list(name: str) -> str:
    """The text of a list that comes with the package; `lists/README.md` has their sources."""
    file = resources.files("vit_jax.evaluation.label_sets") / "lists" / name
    return file.read_text(encoding="utf-8")


def head_logits(opener: Opener, synsets: Sequence[str], title: str) -> tuple[int, ...]:
    """The model's logit of each of some of ImageNet's classes, found by name.

    Args:
      synsets: WordNet ids.
      title: what they are the classes of, for messages.

    Raises:
      UserError: the model has no head, nothing names its classes, or one of these is missing.
    """
    where, names = f"evaluation {opener.name}", opener.context.class_names
    if not opener.model.num_classes:
        raise UserError(
            f"{where}: the model has no head, so it has no classes; give weights with one"
        )
    if names is None:
        raise UserError(
            f"{where}: nothing names the {opener.model.num_classes:,} classes of the head, so "
            f"those of {title} cannot be found; give weights whose classes have ImageNet's names"
        )
    known = ClassNames(names)
    found = [known.find(synset) for synset in synsets]
    missing = [synset for synset, logits in zip(synsets, found, strict=True) if len(logits) != 1]
    if missing:
        raise UserError(
            f"{where}: {len(missing):,} of the {len(synsets):,} classes of {title} are none of the "
            f"head's {len(names):,} ({shortened(missing)}); give weights whose head has them all"
        )
    return tuple(logits[0] for logits in found)


def folder_ids(source: Source, where: str) -> tuple[int, ...]:
    """The class of ImageNet that each of a source's classes is, as a number from 0 to 999.

    Numbers are taken as they are: folder 10 is class 10, although it is listed before folder 2.
    Anything else is a WordNet id or a name.

    Args:
      where: the evaluation, for messages.

    Raises:
      UserError: a class of the source is none of ImageNet's, or two are the same.
    """
    names = source.class_names
    found: list[tuple[int, ...]]
    if all(name.isascii() and name.isdecimal() for name in names):
        found = [(int(name),) if int(name) < len(imagenet_names()) else () for name in names]
    else:
        known = ClassNames(imagenet_names())
        found = [known.find(name) for name in names]
    unknown = [name for name, ids in zip(names, found, strict=True) if len(ids) != 1]
    if unknown or not names:
        what = f" ({shortened(unknown)})" if unknown else ""
        raise UserError(
            f"{where}: {len(unknown):,} of the {len(names):,} classes of {source.name} are none of "
            f"ImageNet's{what}; its folders are named by WordNet id, such as n01440764, or from 0 "
            "to 999"
        )
    ids = tuple(each[0] for each in found)
    first: dict[int, str] = {}
    for name, number in zip(names, ids, strict=True):
        if number in first:
            raise UserError(
                f"{where}: the folders {first[number]!r} and {name!r} of {source.name} are the "
                f"same class of ImageNet ({number}); keep one of them"
            )
        first[number] = name
    return ids


def require_images_of(
    wanted: Sequence[str], found: Sequence[str], *, source: Source, where: str, title: str
) -> None:
    """Refuses a source that lacks classes of a set: its score would be that of another set.

    Raises:
      UserError: it does.
    """
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise UserError(
            f"{where}: {source.name} has no images of {len(missing):,} of the {len(wanted):,} "
            f"classes of {title} ({shortened(missing)}); name the folder that holds all of {title}"
        )


def shortened(names: Sequence[str]) -> str:
    """The first names of many."""
    more = ", …" if len(names) > _LISTED_AT_MOST else ""
    return ", ".join(names[:_LISTED_AT_MOST]) + more


def count_not_finite(batch: Arrays) -> Array:
    """The number of images in a batch whose logits are not all finite."""
    finite = jnp.isfinite(batch["logits"]).all(axis=-1)
    return weighted_sum((~finite).astype(jnp.float32), batch["weights"])


def require_finite(not_finite: float, where: str) -> None:
    """Refuses logits that are NaN or infinite, whose largest one means nothing.

    Args:
      not_finite: the number of images that have such.
      where: the evaluation, for messages.

    Raises:
      UserError: it is above 0.
    """
    if not_finite:
        raise UserError(
            f"{where}: the model's logits are not finite for {not_finite:,.0f} of the images, so "
            "there is nothing to score; check the weights"
        )
