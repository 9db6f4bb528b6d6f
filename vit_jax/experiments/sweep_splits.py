"""A split of training data in two: a part to train on, and a part at its end that is held out."""

import re

from vit_jax.errors import UserError

_SLICED = re.compile(r"([\w-]+)(?:\[(?:(\d+)(%?))?:(?:(\d+)(%?))?\])?")


def parts_of(split: str, percent: int) -> tuple[str, str]:
    """The part of a split that trains, and the rest of it, in TFDS syntax.

    The held-out part is the end, as in the public configs of the paper's authors: 2 percent of
    "train" are "train[:98%]" and "train[98%:]".

    Args:
      split: a name, or one slice of one whose end is known, such as "train[:80%]" or
        "train[:800]".
      percent: of the split that is held out, 1 to 99.

    Raises:
      UserError: the split cannot be cut there.
    """
    if not 1 <= percent <= 99:
        raise UserError(f"--held_out={percent}% must be from 1% to 99%")
    match = _SLICED.fullmatch(split)
    if match is None:
        raise _uncut(split, percent)
    name, first, first_unit, last, last_unit = match.groups()
    if first is None and last is None:
        last, last_unit = "100", "%"
    unit = last_unit if last is not None else first_unit
    if last is None:
        last = "100"
        if unit != "%":  # Where it ends is known to the data only.
            raise _uncut(split, percent)
    if first is not None and first_unit != unit:
        raise _uncut(split, percent)
    start, stop = int(first or 0), int(last)
    cut, rest = divmod(stop * 100 - (stop - start) * percent, 100)
    if (unit == "%" and rest) or not start < cut < stop:
        raise _uncut(split, percent)
    before = "" if first is None else f"{start}{unit}"
    after = "" if (stop, unit) == (100, "%") else f"{stop}{unit}"
    return f"{name}[{before}:{cut}{unit}]", f"{name}[{cut}{unit}:{after}]"


def _uncut(split: str, percent: int) -> UserError:
    return UserError(
        f"--held_out={percent}%: config.data.train={split!r} cannot be cut there in whole percents "
        "or records; train on a whole split, such as --config.data.train=train, or hold out "
        "another part"
    )
