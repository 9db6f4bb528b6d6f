"""The classes of ImageNet: WordNet ids and words; and class names from a text file.

A head's outputs are numbers; what each stands for is looked up here. A word may stand for several
classes ("crane" is a bird and a machine), an id stands for one.
"""

from __future__ import annotations

import functools
import gzip
from importlib import resources
from pathlib import Path

from vit_jax.errors import UserError
from vit_jax.reading import read_text
from vit_jax.weights.kinds import require_regular


def imagenet_synsets() -> tuple[str, ...]:
    """WordNet ids of ILSVRC-2012's 1,000 classes, such as `n01440764`, in their usual order."""
    return _read_list("imagenet.txt")[0]


def imagenet_names() -> tuple[str, ...]:
    """WordNet's words for the same 1,000 classes, such as `tench, Tinca tinca`.

    A class's synonyms are separated by a comma and a space. The name of class 134 and of class 517
    is `crane` alone; all other names differ.
    """
    return _read_list("imagenet.txt")[1]


def imagenet21k_synsets() -> tuple[str, ...]:
    """WordNet ids of the 21,843 classes of Google's ImageNet-21k, in the order of its heads."""
    return _read_list("imagenet21k.txt.gz")[0]


def imagenet21k_names() -> tuple[str, ...]:
    """WordNet's words for the same 21,843 classes; several classes may have the same words."""
    return _read_list("imagenet21k.txt.gz")[1]


def read_class_names(path: Path, num_classes: int) -> tuple[str, ...]:
    """Reads a text file with one class name a line, in the order of the classes.

    Raises:
      UserError: the file cannot be read, or does not have `num_classes` lines.
    """
    require_regular(path)
    try:
        names = tuple(read_text(path).splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}; give a text file of class names") from error
    if len(names) != num_classes:
        raise UserError(
            f"{path}: {len(names)} class names, but the model has {num_classes} classes; write one "
            "name a line, in the order of the classes"
        )
    return names


@functools.cache
def _read_list(file: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and words of a list; `class_lists/README.md` has their sources."""
    data = (resources.files("vit_jax.weights") / "class_lists" / file).read_bytes()
    data = gzip.decompress(data) if file.endswith(".gz") else data
    lines = [line.split(" ", 1) for line in data.decode("utf-8").splitlines()]
    return tuple(synset for synset, _ in lines), tuple(words for _, words in lines)
