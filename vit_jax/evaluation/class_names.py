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
    WordNet id; otherwise the one that has it as its first synonym, then as any synonym, then the
    one whose name or synonym differs only in upper case, underscores, hyphens or spaces.

    Args:
      names: of all classes, in their order.
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._exact, self._by_id, self._first, self._any, self._similar = (
            defaultdict[str, set[int]](set) for _ in range(5)
        )
        for label, (name, synset) in enumerate(zip(names, _ids_of_list(self.names), strict=True)):
            full_names = {name}
            if synset is not None:
                self._by_id[synset].add(label)
                full_names.add(_known_names().get(synset, name))
            for full_name in full_names:
                words = full_name.split(", ")
                self._exact[full_name].add(label)
                self._first[words[0]].add(label)
                for word in (full_name, *words):
                    self._any[word].add(label)
                    self._similar[_plain(word)].add(label)

    def find(self, name: str) -> tuple[int, ...]:
        """The classes that a name may mean, of which there should be one."""
        plain = _plain(name)
        # Other words of the same synset, such as `puma` where the model has `cougar`.
        related = (self._by_id.get(each, set()) for each in _ids_by_word().get(plain, ()))
        for found in (
            self._exact.get(name),
            self._by_id.get(_id_of(name) or ""),
            self._first.get(name),
            self._any.get(name),
            self._similar.get(plain),
            set().union(*related),
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


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_\-\s]+", " ", name.casefold()).split())


@functools.cache
def _ids_by_word() -> dict[str, tuple[str, ...]]:
    """ImageNet's WordNet ids by each of their names and synonyms, as `_plain` writes them."""
    ids: dict[str, list[str]] = defaultdict(list)
    for synset, name in zip(imagenet_synsets(), imagenet_names(), strict=True):
        for word in {_plain(word) for word in (name, *name.split(", "))}:
            ids[word].append(synset)
    return {word: tuple(found) for word, found in ids.items()}


@functools.cache
def _known_names() -> dict[str, str]:
    """The names of ImageNet-21k's and ImageNet's classes by WordNet id."""
    larger = dict(zip(imagenet21k_synsets(), imagenet21k_names(), strict=True))
    return larger | dict(zip(imagenet_synsets(), imagenet_names(), strict=True))
