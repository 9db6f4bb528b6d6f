"""What a first hour on a CPU spends, in CPU time: inference, compiling, and training small ViTs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.peers.case import BASE, Case, model
from benchmarks.peers.rounds import (
    Sample,
    cell,
    mean_ratio,
    significant,
    started,
    take_starts,
    take_turns,
)

# Compiling with torch.compile takes minutes, and its time decides nothing.
SLOW, SLOW_ROUNDS = "timm, compiled", 3
STEPS = 100


class Sizes(NamedTuple):
    """What the rows are about."""

    forwards: tuple[Case, ...]
    first: Case
    step: Case


def sizes(small: bool) -> Sizes:
    """The rows' models; `small` ones only show that everything runs."""

    batch = 2 if small else 32
    tiny, base, medium = (model(f"ViT-{name}/16", small, "float32") for name in ("Ti", "B", "S"))
    forwards = Case("forward", tiny, batch), Case("forward", base, batch)
    return Sizes(forwards, Case("train", tiny, min(batch, 8)), Case("train", medium, min(batch, 8)))


def table(names: Sequence[str], rounds: int, small: bool, tell: Callable[[str], None]) -> None:
    """Measures row by row and tells each as it is known."""
    rows = sizes(small)
    tell("| CPU time | " + " | ".join(names) + " |")
    tell("|" + " --- |" * (len(names) + 1))
    totals = dict.fromkeys(names, 0.0)
    ratios: dict[str, list[float]] = {name: [] for name in names}
    agreements = []

    def row(title: str, samples: dict[str, Sample]) -> None:
        cells = (cell(samples[name], samples[BASE]) for name in names)
        tell(f"| {title} | " + " | ".join(cells) + " |")

    def count(samples: dict[str, Sample]) -> None:
        for name in names:
            totals[name] += samples[name].low
            ratios[name].append(samples[name].low / samples[BASE].low)

    def turns(case: Case) -> dict[str, Sample]:
        with started(case, names) as (workers, agreement):
            agreements.append(agreement)
            return take_turns(workers, rounds, 1, cpu=True)

    for case in (rows.forwards[0], rows.step):
        samples = turns(case)
        row(case.title, samples)
        count(samples)
    steps = turns(rows.first)
    row(rows.first.title, steps)
    starts = take_starts(
        rows.first,
        {name: min(rounds, SLOW_ROUNDS) if name == SLOW else rounds for name in names},
        cpu=True,
    )
    row("the same, from imported libraries to the end of the first step", starts)
    first = {name: Sample([starts[name].low + (STEPS - 1) * steps[name].low]) for name in names}
    row(f"so compiling and the first {STEPS} steps", first)
    count(first)
    # Last, because it takes longest.
    samples = turns(rows.forwards[1])
    row(rows.forwards[1].title, samples)
    count(samples)
    sums = " | ".join(
        f"{significant(totals[name])} s, **{totals[name] / totals[BASE]:.2f}**" for name in names
    )
    tell(f"| sum of the forwards, the step of S/16 and the first {STEPS} steps | {sums} |")
    means = " | ".join(f"**{mean_ratio(ratios[name]):.2f}**" for name in names)
    tell(f"| mean ratio of these four | {means} |\n")
    for agreement in agreements:
        tell(f"- {agreement}.")
