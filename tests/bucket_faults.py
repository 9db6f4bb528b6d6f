"""Answers of a bucket that fail on purpose, by kind of request, and the counts of them."""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Kinds of requests. A conditional create is a write on the condition that no object is there.
KINDS = ("create", "ranged read", "list", "write", "delete")
# Further ones, to which nothing must happen: reads of whole objects, of their metadata, and copies
# inside the bucket.
OTHER_KINDS = ("read", "stat", "copy", "bucket")
CHANGES = ("create", "write", "delete", "copy")

# What happens to an answer. Errors come before anything is done. `cut` and `late` come after it:
# what a request changes is changed, whether its sender hears of it or not.
HOWS = ("503", "429", "cut", "late")


@dataclass
class Faults:
    """What goes wrong at a bucket.

    Attributes:
      late: seconds of `late`.
      latency: seconds added to each answer.
      access: "write", "read" (changes are refused with 403) or "none" (all is).
      is_silent: whether requests get no answer at all.
      counts: by kind and by what happened: a member of HOWS, or "well".
    """

    late: float = 5.0
    latency: float = 0.0
    access: str = "write"
    is_silent: bool = False
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    plans: dict[str, Iterator[str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def inject(
        self, kind: str, *hows: str, every: int = 1, probability: float = 0, seed: int = 0
    ) -> None:
        """Lets requests of this kind suffer the next of `hows`, in turn.

        Args:
          kind: a member of KINDS or OTHER_KINDS.
          hows: members of HOWS; none of them ends what was planned for the kind.
          every: the n-th request of the kind, and so on; not used with a probability.
          probability: that a request is met, from 0 to 1.
          seed: of the draws.
        """
        if kind not in KINDS + OTHER_KINDS or not set(hows) <= set(HOWS):
            raise ValueError(f"{kind}: {hows}")
        with self.lock:
            self.plans[kind] = _plan(hows, every, probability, seed)

    def next(self, kind: str) -> str:
        """What happens to this request of the kind, which is counted."""
        with self.lock:
            how = next(self.plans[kind], "well") if kind in self.plans else "well"
            self.counts[kind, how] += 1
            return how

    def set(self, settings: dict[str, Any]) -> None:
        """Takes over settings that came from another process.

        Those of `inject` are a list at `inject`, each a dictionary with its arguments.
        """
        for plan in settings.pop("inject", []):
            self.inject(plan.pop("kind"), *plan.pop("hows"), **plan)
        for name, value in settings.items():
            setattr(self, name, value)


def _plan(hows: tuple[str, ...], every: int, probability: float, seed: int) -> Iterator[str]:
    draws, turns = random.Random(seed), itertools.cycle(hows)
    for count in itertools.count(1) if hows else ():
        is_met = draws.random() < probability if probability else count % every == 0
        yield next(turns) if is_met else "well"
