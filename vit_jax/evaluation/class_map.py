"""Matches a data set's classes with a model's: by name, never silently by position.

Where names differ, a file lists the pairs, in one of three forms. A class of the data that the file
does not list is matched by its name.

- `.txt`: a line `data name -> model name` for each class; `#` starts a comment.
- `.csv`: two columns, the data's name and the model's; a first row `data,model` is a heading.
- `.json`: an object from data names to model names.

The model's class is a name, a synonym or WordNet id of ImageNet's, or a number from 0. Nothing in
its place (in JSON `null`) leaves the examples of this class out.
"""

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

from vit_jax.errors import UserError
from vit_jax.evaluation.class_names import ClassNames
from vit_jax.reading import read_text
from vit_jax.spelling import nearest

_LISTED_AT_MOST = 8


@dataclass(frozen=True)
class ClassMap:
    """The model's class of each of a data set's classes.

    Attributes:
      labels: by the data's label, the model's, or -1 for a class that is left out.
      num_classes: number of the model's logits.
      how: how the classes were matched, for a person; empty if the names are simply equal.
      own_only: whether only the logits of the data's classes compete.
    """

    labels: tuple[int, ...]
    num_classes: int
    how: str = ""
    own_only: bool = False

    def subset(self) -> "ClassMap":
        """The same, scored over the data's own classes."""
        return dataclasses.replace(self, own_only=True)

    @property
    def classes(self) -> tuple[int, ...]:
        """The model's classes that the data has, ascending."""
        return tuple(sorted({label for label in self.labels if label >= 0}))

    @property
    def scope(self) -> str:
        """What the scores are over, to end a line with; empty if the data has all classes."""
        found = len(self.classes)
        if found == self.num_classes:
            return ""
        over = "over these alone" if self.own_only else "over all logits"
        return f" ({found:,} of {self.num_classes:,} classes, {over})"

    def competing(self, label: int) -> int:
        """What `apply` makes of one of the data's labels; -1 if its class is left out."""
        own = self.labels[label]
        if self.own_only and own >= 0:
            return self.classes.index(own)
        return own

    def apply(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """The logits that compete, and each label as a position among them.

        Args:
          logits: [batch, num_classes].
          labels: the data's, int [batch] or [batch, labels]; -1 is no label.
        """
        table = np.array(self.labels, np.int32)
        if self.own_only:
            logits = logits[:, np.array(self.classes)]
            table = np.where(table < 0, -1, np.searchsorted(self.classes, table))
        elif self.labels == tuple(range(len(self.labels))):
            return logits, labels
        return logits, jnp.where(labels < 0, -1, jnp.asarray(table)[jnp.maximum(labels, 0)])


def match_classes(
    data_names: Sequence[str],
    model_names: Sequence[str] | None,
    num_classes: int,
    *,
    data: str,
    file: Path | None = None,
    option: str = "--class_map",
) -> ClassMap | None:
    """Matches a data set's classes with a model's.

    Names on both sides are matched by name (`class_names.ClassNames`). Names that are all numbers
    are taken as the model's numbers where no name matches. If only one side has names, equal
    numbers of classes are matched by their order.

    Args:
      data_names: in the order of the data's labels; empty if labels are the model's numbers.
      model_names: in the order of the logits; None if they are not known. There may be fewer than
        logits.
      data: the data set's name, for messages.
      file: lists classes whose names differ.
      option: how a user names the file, for messages.

    Returns:
      None if `data_names` is empty.

    Raises:
      UserError: a class of the data cannot be matched, two of them are the same class of the model
        and the file does not list them, or the file cannot be read.
    """
    if not data_names:
        return None
    listed = {} if file is None else _read(file)
    for name in listed:
        if name not in data_names:
            raise UserError(f"{file}: {data} has no class {name!r}{nearest(name, data_names)}")
    known = ClassNames(model_names or ())
    labels, unmatched = [], []
    for name in data_names:
        if name in listed:
            labels.append(_listed(listed[name], known, num_classes, file))
            continue
        found = known.find(name)
        labels.append(found[0] if len(found) == 1 else -1)
        if len(found) != 1:
            unmatched.append(name)
    if not unmatched:
        _refuse_shared(data_names, labels, listed, known, data, option)
        is_same = labels == list(range(num_classes)) and not listed
        how = "" if is_same else f"{_counts(labels, num_classes)}, matched by name"
        return ClassMap(tuple(labels), num_classes, f"{how} and {file}" if listed else how)
    # Where one name matches, all of them are names.
    if not listed and len(unmatched) == len(data_names):
        by_other = _without_names(data_names, model_names, num_classes)
        if by_other is not None:
            return by_other
    raise UserError(_refusal(data_names, unmatched, known, num_classes, data, option))


def _without_names(
    data_names: Sequence[str], model_names: Sequence[str] | None, num_classes: int
) -> ClassMap | None:
    """By number or by order, where one side has no names."""
    if _are_numbers(data_names) and all(int(name) < num_classes for name in data_names):
        labels = [int(name) for name in data_names]
        if len(set(labels)) == len(labels):
            how = f"{_counts(labels, num_classes)}, by the numbers that they are called"
            return ClassMap(tuple(labels), num_classes, how)
    if (model_names is None or _are_numbers(model_names)) and len(data_names) == num_classes:
        pairs = [f"{label} = {name}" for label, name in enumerate(data_names)]
        how = f"the model's classes have no names, so the order counts: {_list(pairs)}"
        return ClassMap(tuple(range(num_classes)), num_classes, how)
    return None


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isascii() and name.isdecimal() for name in names)


def _refuse_shared(
    data_names: Sequence[str],
    labels: Sequence[int],
    listed: Mapping[str, object],
    known: ClassNames,
    data: str,
    option: str,
) -> None:
    first: dict[int, str] = {}
    for name, label in zip(data_names, labels, strict=True):
        if name in listed:
            continue
        if label in first:
            raise UserError(
                f"{data}: its classes {first[label]!r} and {name!r} are both the model's class "
                f"{known.names[label]!r}; name the model's class of each in {option}=FILE"
            )
        first[label] = name


def _counts(labels: Sequence[int], num_classes: int) -> str:
    found = len({label for label in labels if label >= 0})
    left_out = sum(label < 0 for label in labels)
    less = f" ({left_out} are left out)" if left_out else ""
    return f"{len(labels):,} classes{less} are {found:,} of the model's {num_classes:,}"


def _refusal(
    data_names: Sequence[str],
    unmatched: Sequence[str],
    known: ClassNames,
    num_classes: int,
    data: str,
    option: str,
) -> str:
    remedy = f"give {option}=FILE with a line 'data name -> model name' for each such class"
    if not known.names:
        return (
            f"{data} has {len(data_names)} classes ({_list(map(repr, data_names))}), and the model "
            f"has {num_classes} without names; {remedy}, where a model name is a number from 0"
        )
    shown = []
    for name in unmatched[:_LISTED_AT_MOST]:
        several = known.find(name)
        several_are = f" (may be {' or '.join(map(str, several))})" if several else ""
        shown.append(f"{name!r}{several_are}")
    more = ", …" if len(unmatched) > _LISTED_AT_MOST else ""
    return (
        f"{data}: {len(unmatched)} of its {len(data_names)} classes are none of the model's: "
        f"{', '.join(shown)}{more}. The model's {len(known.names)} classes: "
        f"{_list(map(repr, known.names))}; {remedy}"
    )


def _list(words: "Sequence[str] | map[str]") -> str:
    words = list(words)
    more = ", …" if len(words) > _LISTED_AT_MOST else ""
    return f"{', '.join(words[:_LISTED_AT_MOST])}{more}"


def _listed(
    target: str | int | None, known: ClassNames, num_classes: int, file: Path | None
) -> int:
    """The model's class that a file names; -1 for none."""
    if target is None or target == "":
        return -1
    found = known.find(target) if isinstance(target, str) else ()
    if len(found) == 1:
        return found[0]
    number = str(target)
    if not found and number.isascii() and number.isdecimal() and int(number) < num_classes:
        return int(number)
    if found:
        raise UserError(
            f"{file}: {target!r} may be the model's class {' or '.join(map(str, found))}; write "
            "the number, or a WordNet id"
        )
    raise UserError(f"{file}: the model has no class {target!r}{nearest(str(target), known.names)}")


def _read(file: Path) -> dict[str, str | int | None]:
    """Reads a class map: see the top of this module."""
    try:
        text = read_text(file)
        pairs = _READERS[file.suffix.lower()](text)
    except KeyError:
        raise UserError(f"{file}: unknown type; name a .txt, .csv or .json file") from None
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: cannot be read as a class map ({reason})") from error
    found: dict[str, str | int | None] = {}
    for name, target in pairs:
        if name in found and found[name] != target:
            raise UserError(
                f"{file}: {name!r} has two different classes of the model; keep one line"
            )
        found[name] = target
    return found


_Pairs = list[tuple[str, str | int | None]]


def _read_text(text: str) -> _Pairs:
    pairs: _Pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, arrow, target = line.partition("->")
        if not arrow or not name.strip():
            raise ValueError(f"line {number} is not 'data name -> model name'")
        pairs.append((name.strip(), target.strip()))
    return pairs


def _read_csv(text: str) -> _Pairs:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if rows and [cell.strip() for cell in rows[0]] == ["data", "model"]:
        rows = rows[1:]
    for row in rows:
        if len(row) != 2:
            raise ValueError(f"{','.join(row)!r} is not a row of two columns")
    return [(row[0].strip(), row[1].strip()) for row in rows]


def _read_json(text: str) -> _Pairs:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    for name, target in value.items():
        if isinstance(target, bool) or not isinstance(target, str | int | None):
            raise ValueError(f"{name!r}: {target!r} is not a name, a number or null")
    return list(value.items())


_READERS = {".txt": _read_text, ".csv": _read_csv, ".json": _read_json}
