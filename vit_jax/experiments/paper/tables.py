"""The tables by name, each as a page."""

from collections.abc import Callable, Iterable, Mapping

from etils import epath

from vit_jax.errors import UserError
from vit_jax.experiments.paper.comparison import compare
from vit_jax.experiments.paper.comparisons import COMPARISONS
from vit_jax.experiments.paper.leaderboards import leaderboard
from vit_jax.experiments.paper.page import Page
from vit_jax.experiments.paper.recipes import table_1, table_3, table_4
from vit_jax.experiments.paper.runs import read_runs
from vit_jax.experiments.paper.score_files import read_scores
from vit_jax.experiments.paper.scored import Result
from vit_jax.storage.paths import given_path

# Tables that hold no results.
_RECIPES: Mapping[str, Callable[[], Page]] = {"1": table_1, "3": table_3, "4": table_4}
_LEADERBOARD = "leaderboard"
TABLES = (*sorted((*_RECIPES, *COMPARISONS)), _LEADERBOARD)


def table(name: str, runs: Iterable[str] = ()) -> Page:
    """A published table, with our results where there are any.

    Args:
      name: one of `TABLES`; numbers are the paper's.
      runs: directories of runs, directories that hold runs, and files that `evaluate --output`
        wrote. One that is named twice counts once.

    Raises:
      UserError: there is no such table or run, or the table holds no results.
    """
    paths = dict.fromkeys(given_path(each) for each in runs)
    if name in _RECIPES:
        if paths:
            with_results = ", ".join((*COMPARISONS, _LEADERBOARD))
            raise UserError(
                f"--runs would be ignored: table {name} holds no results, but {with_results} do"
            )
        return _RECIPES[name]()
    if name not in TABLES:
        raise UserError(f"--table={name}: there is no such table; name one of {', '.join(TABLES)}")
    results = {result.name: result for path in paths for result in _read(path)}.values()
    return leaderboard(results) if name == _LEADERBOARD else compare(COMPARISONS[name], results)


def _read(path: epath.Path) -> list[Result]:
    return read_scores(path) if path.suffix == ".json" else read_runs(path)
