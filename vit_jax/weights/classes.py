"""Class names that belong to weights."""

import functools
from importlib import resources
from pathlib import Path

from vit_jax.errors import UserError


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 classes of ILSVRC-2012 in their usual order: WordNet's words for each synset."""
    file = resources.files("vit_jax.weights") / "imagenet_classes.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


def read_class_names(path: Path, num_classes: int) -> tuple[str, ...]:
    """A text file with one name a line, in the order of the classes.

    Raises:
      UserError: it cannot be read, or has another number of lines than there are classes.
    """
    try:
        names = tuple(path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}; give a text file of class names") from error
    if len(names) != num_classes:
        raise UserError(
            f"{path}: {len(names)} class names, but the model has {num_classes} classes; write one "
            "name a line, in the order of the classes"
        )
    return names
