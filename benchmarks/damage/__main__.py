"""Damages files of every kind in every way, and counts how the program takes it.

    python -m benchmarks.damage
    python -m benchmarks.damage --only=checkpoints --workers=2
    python -m benchmarks.damage --draw=100

Results lie in --directory, so that the next call resumes; those of
another commit of the program are run anew.
Prints each case that ended as none may, and the table; exits with 1 if there is such a case.
"""

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.damage.kinds import KINDS, kind_of
from benchmarks.damage.pool import Limits, Pool, Result
from benchmarks.damage.record import Record, commit
from benchmarks.damage.table import as_markdown


def main(
    only: list[str], draw: int | None, seed: int, workers: int, directory: Path, table: Path | None
) -> int:
    root = directory.absolute() / commit()
    with Pool(root, Limits(), workers) as pool:
        results = run(pool, root, only, draw, seed, report=_report)
    text = as_markdown(results, sys.argv[1:], workers)
    if table is not None:
        table.write_text(text)
    print(text)
    return int(any(is_fault(result) for result in results))


def run(
    pool: Pool,
    root: Path,
    kinds: Sequence[str],
    draw: int | None,
    seed: int,
    report: Callable[[Result], object] = lambda result: None,
) -> list[Result]:
    """The results of all cases of these kinds, or of some that are drawn.

    Args:
      root: where results are kept; what is there is not run again.
      report: called with each new result.
    """
    cases = [case for kind in kinds for case in pool.prepare(kind)]
    if draw is not None:
        chosen = set(random.Random(seed).sample(range(len(cases)), min(draw, len(cases))))
        cases = [case for i, case in enumerate(cases) if i in chosen]
    record = Record(root / "results.jsonl")
    for result in pool.run([case for case in cases if case not in record.results]):
        record.add(result)
        report(result)
    return [record.results[case] for case in cases]


def is_fault(result: Result) -> bool:
    """Whether a case ended as none of its kind may."""
    return result.end not in kind_of(result.case.kind).ALLOWED


def _report(result: Result) -> None:
    if is_fault(result):
        print(f"{result.case.key}: {result.end}: {result.detail}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--draw", type=int, help="number of cases that are drawn (all)")
    parser.add_argument("--seed", type=int, default=0, help="draws the cases (0)")
    parser.add_argument("--workers", type=int, default=1, help="processes that run cases (1)")
    parser.add_argument("--directory", type=Path, default=Path("runs/damage"))
    parser.add_argument("--table", type=Path, help="a Markdown file to write the table to")
    sys.exit(main(**vars(parser.parse_args())))
