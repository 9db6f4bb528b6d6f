"""The results as a page of Markdown."""

import os
from collections import Counter
from collections.abc import Callable, Sequence

from benchmarks.damage.kinds import kind_of
from benchmarks.damage.outcomes import End
from benchmarks.damage.pool import Result
from benchmarks.damage.record import commit
from benchmarks.machine import versions


def as_markdown(results: Sequence[Result], arguments: Sequence[str], workers: int) -> str:
    """Counts of ends, by damage and by file, for each kind; then the cases in no allowed column."""
    seconds = sum(result.seconds for result in results)
    faults = [r for r in results if r.end not in kind_of(r.case.kind).ALLOWED]
    lines = [
        "# Damaged files",
        "",
        "```bash",
        " ".join(["python -m benchmarks.damage", *arguments]),
        "```",
        "",
        f"{len(results):,} cases, {len(faults)} of them in the last column; {seconds:.0f} s in "
        f"{workers} processes ({seconds / max(len(results), 1):.2f} s a case, at most "
        f"{max((r.seconds for r in results), default=0):.1f} s and "
        f"{max((r.megabytes for r in results), default=0)} MiB). Commit {commit()}, "
        f"{versions()}, {os.cpu_count()} cores.",
    ]
    for kind in dict.fromkeys(result.case.kind for result in results):
        of_kind = [result for result in results if result.case.kind == kind]
        lines += ["", f"## {kind.capitalize()}", "", (kind_of(kind).__doc__ or "").strip()]
        lines += ["", *_counts("damage", of_kind, lambda result: result.case.damage)]
        lines += ["", *_counts("file", of_kind, lambda result: result.case.group)]
    if faults:
        lines += ["", "## Other ends", ""]
        lines += [f"- {fault.case.key}: {fault.end}: {fault.detail}" for fault in faults]
    return "\n".join(lines) + "\n"


def _counts(title: str, results: Sequence[Result], name_of: Callable[[Result], str]) -> list[str]:
    allowed = kind_of(results[0].case.kind).ALLOWED
    head = [title, "cases", *allowed, "anything else"]
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    rows: dict[str, Counter[End]] = {}
    for result in results:
        rows.setdefault(name_of(result), Counter())[result.end] += 1
    for name, counts in rows.items():
        other = counts.total() - sum(counts[end] for end in allowed)
        cells = [counts.total(), *(counts[end] for end in allowed), other]
        lines.append(f"| {name} | " + " | ".join(str(cell or "") for cell in cells) + " |")
    return lines
