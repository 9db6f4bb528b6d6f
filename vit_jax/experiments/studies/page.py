"""What a study found, as a table with the verdicts of its claims, and as a picture."""

import statistics
from collections.abc import Mapping, Sequence

from vit_jax import pictures
from vit_jax.experiments.paper.page import Page
from vit_jax.experiments.studies.running import CellResult
from vit_jax.experiments.studies.study import STANDARD_ERRORS, Claim, Difference, Study, difference

_PAPER = "arXiv 2010.11929v2"
# The heading of the paper's figures, where it prints any.
_PUBLISHED = {False: (), True: ("paper, %",)}


def as_page(study: Study, results: Sequence[CellResult]) -> Page:
    """A row for each cell: mean, standard error, seeds, the paper's figure; then the claims."""
    rows, records, has_published = [], [], bool(study.published)
    for result in results:
        published = study.published.get(result.cell.name)
        mean, error = _mean(result.scores), _error(result.scores)
        flops = None if result.cost is None else result.cost.exaflops
        rows.append(
            (
                result.cell.name,
                _percent(mean),
                _percent(error),
                str(len(result.scores)),
                *([_percent(published)] if has_published else []),
                "" if flops is None else f"{flops:.3g}",
            )
        )
        records.append(
            {
                "cell": result.cell.name,
                "score": result.cell.score,
                "mean": mean,
                "standard_error": error,
                "scores": list(result.scores),
                "diverged": list(result.diverged),
                "published": published,
                "exaflops": flops,
            }
        )
    diverged = [
        f"{result.cell.name}: diverged with seed {', '.join(map(str, result.diverged))}"
        for result in results
        if result.diverged
    ]
    return Page(
        title=f"{study.title}: {', '.join(dict.fromkeys(r.cell.score for r in results))}",
        source=f"{_PAPER}, {study.source}",
        heading=("", "mean, %", "standard error", "seeds", *_PUBLISHED[has_published], "exaFLOPs"),
        rows=tuple(rows),
        notes=(
            *(line(claim, found) for claim, found in verdicts(study, results)),
            *diverged,
            *study.notes,
        ),
        records=tuple(records),
    )


def verdicts(study: Study, results: Sequence[CellResult]) -> list[tuple[Claim, Difference | None]]:
    """The difference that decides each claim; None where every run of a cell diverged."""
    scores: Mapping[str, tuple[float, ...]] = {r.cell.name: r.scores for r in results}
    found = []
    for claim in study.claims:
        better, worse = scores[claim.better], scores[claim.worse]
        found.append((claim, difference(better, worse) if better and worse else None))
    return found


def line(claim: Claim, found: Difference | None) -> str:
    """A claim with its verdict and the interval of two standard errors, in percentage points."""
    if found is None:
        return f"{claim.text} ({claim.source}): cannot be told here, since runs diverged"
    interval = f" ± {100 * STANDARD_ERRORS * found.error:.2f}" if found.seeds > 1 else ""
    verdict = claim.verdict(found)
    seeds = "1 seed" if found.seeds == 1 else f"{found.seeds} seeds"
    return (
        f"{claim.text} ({claim.source}): {verdict}; {claim.better} less {claim.worse} is "
        f"{100 * found.value:+.2f}{interval} points over {seeds}"
    )


def draw(study: Study, results: Sequence[CellResult], suffix: str) -> bytes:
    """A point for each cell with two standard errors; the paper's figures are hollow.

    Args:
      suffix: `.png` or `.svg`.
    """
    from matplotlib.figure import Figure

    with pictures.style(9):
        figure = Figure(figsize=(7, 1.4 + 0.4 * len(results)), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(True, axis="x")
        for place, result in enumerate(results):
            if result.scores:
                error = _error(result.scores) or 0.0
                mean = statistics.fmean(result.scores)
                axes.errorbar(
                    100 * mean,
                    place,
                    xerr=100 * STANDARD_ERRORS * error,
                    fmt="o",
                    color="tab:blue",
                    capsize=3,
                )
            if (published := study.published.get(result.cell.name)) is not None:
                axes.plot(100 * published, place, "s", mfc="none", color="tab:gray")
        axes.set_yticks(range(len(results)), [result.cell.name for result in results])
        axes.set_ylim(len(results) - 0.5, -0.5)
        axes.set_xlabel("score, %; bars are two standard errors")
        axes.set_title(f"{study.title} ({study.source})", loc="left", wrap=True)
    return pictures.as_bytes(figure, suffix)


def _mean(scores: Sequence[float]) -> float | None:
    return statistics.fmean(scores) if scores else None


def _error(scores: Sequence[float]) -> float | None:
    return statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else None


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"
