"""Which of a list of classes a name means. ImageNet's classes have ids, names and synonyms."""

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from vit_jax.weights.classes import (
    imagenet21k_names,
    imagenet21k_synsets,
    imagenet_names,
    imagenet_synsets,
)

# A WordNet id, alone or before a name, as in the folder `n02085620-Chihuahua`.
_ID = re.compile(r"n\d{8}(?=$|[\s_.,:-])")


class ClassNames:
    """Finds classes by name.

    A name means the class that has exactly this name. Otherwise it means the class with the same
    WordNet id, the one that has it as a synonym, or the one whose name or synonym differs only in
    upper case, underscores, hyphens or spaces.

    Args:
      names: of all classes, in their order.
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        ids = _ids_of_list(self.names)
        self._steps: tuple[dict[str, set[int]], ...] = tuple(defaultdict(set) for _ in range(4))
        exact, by_id, synonyms, similar = self._steps
        for label, (name, synset) in enumerate(zip(self.names, ids, strict=True)):
            exact[name].add(label)
            words = {name, *_words(name)}
            if synset is not None:
                by_id[synset].add(label)
                words.update(_words(_known_names().get(synset, "")))
            for word in words:
                synonyms[word].add(label)
                similar[_plain(word)].add(label)

    def find(self, name: str) -> tuple[int, ...]:
        """The classes that a name may mean, of which there should be one."""
        exact, by_id, synonyms, similar = self._steps
        synset = _id_of(name)
        for found in (
            exact.get(name),
            by_id.get(synset) if synset is not None else None,
            synonyms.get(name),
            similar.get(_plain(name)),
            # All words of a synset, such as `puma` where the model has `cougar`.
            set().union(*(by_id.get(each, ()) for each in _ids_by_word().get(_plain(name), ()))),
        ):
            if found:
                return tuple(sorted(found))
        return ()


def _ids_of_list(names: tuple[str, ...]) -> Iterable[str | None]:
    """The WordNet id of each class, where there is one for certain."""
    # Two of ImageNet's classes are called "crane": only their places tell them apart.
    if names == imagenet_names():
        return imagenet_synsets()
    if len(names) == len(imagenet21k_names()) and names == imagenet21k_names():
        return imagenet21k_synsets()
    return [_id_of(name) or _only(_ids_by_word().get(_plain(name), ())) for name in names]


def _id_of(name: str) -> str | None:
    found = _ID.match(name)
    return None if found is None else found.group()


def _only(ids: Iterable[str]) -> str | None:
    first, *others = [*ids, None]
    return first if len(others) == 1 else None


def _words(name: str) -> list[str]:
    return name.split(", ") if name else []


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_\-\s]+", " ", name.casefold()).split())


@functools.cache
def _ids_by_word() -> dict[str, tuple[str, ...]]:
    """ImageNet's WordNet ids by each of their names and synonyms, as `_plain` writes them."""
    ids: dict[str, list[str]] = defaultdict(list)
    for synset, name in zip(imagenet_synsets(), imagenet_names(), strict=True):
        for word in {_plain(word) for word in (name, *_words(name))}:
            ids[word].append(synset)
    return {word: tuple(found) for word, found in ids.items()}


@functools.cache
def _known_names() -> dict[str, str]:
    """The names of ImageNet-21k's and ImageNet's classes by WordNet id."""
    larger = dict(zip(imagenet21k_synsets(), imagenet21k_names(), strict=True))
    return larger | dict(zip(imagenet_synsets(), imagenet_names(), strict=True))
