"""Accuracy against data and compute of pre-training: Figures 3, 4 and 5 of the paper.

Figure 3 has accuracies after fine-tuning on ImageNet by the size of the pre-training data (the
ImageNet rows of Table 5), Figure 4 5-shot accuracies on ImageNet by the number of images of
JFT-300M, Figure 5 accuracies after transfer by exaFLOPs of pre-training (Table 6). The paper prints
no values of Figure 4.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from etils import epath

from vit_jax.analysis.published.results import AVERAGE_5, EXAFLOPS, TABLE_5, TABLE_6
from vit_jax.data.sources.published import DATASETS
from vit_jax.errors import UserError
from vit_jax.experiments.paper.lineage import Stage, dataset_named, is_near
from vit_jax.experiments.paper.page import Page
from vit_jax.experiments.paper.runs import read_runs
from vit_jax.experiments.paper.scored import COST, Result, Scored
from vit_jax.models.config import ModelConfig
from vit_jax.models.sizes import FamilyName
from vit_jax.runs.config_file import is_run, read_config
from vit_jax.runs.cost import read_cost
from vit_jax.storage.paths import given_path

Compute = Literal["exaflops", "device_hours"]
_AVERAGE = "Average-5"
# Runs that start from each other in a circle have an end here.
_MOST_STAGES = 8


class Point(NamedTuple):
    """One model in one panel of a figure.

    Attributes:
      panel: the data set that it is scored on, or an average.
      model: its name.
      x: images or compute of pre-training.
      y: accuracy in percent.
      weights: the run; None for a published point.
    """

    panel: str
    model: str
    x: float
    y: float
    weights: str | None = None


@dataclass(frozen=True)
class ScalingFigure:
    """A figure of accuracies.

    Attributes:
      claim: what the paper says that it shows.
      x_label, y_label: of its axes, with units.
      notes: what is left out, and why.
    """

    source: str
    claim: str
    x_label: str
    y_label: str
    points: tuple[Point, ...]
    notes: tuple[str, ...]

    def panels(self) -> dict[str, list[Point]]:
        """The points of each panel, published panels first."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.panel, []).append(point)
        return found

    def as_page(self) -> Page:
        """The points as a table."""
        return Page(
            title=self.claim,
            source=self.source,
            heading=("panel", "model", self.x_label, self.y_label, "weights"),
            rows=tuple(
                (p.panel, p.model, _as_number(p.x), f"{p.y:.2f}", p.weights or "published")
                for p in self.points
            ),
            notes=self.notes,
            records=tuple(p._asdict() for p in self.points),
            left=2,
        )


def _as_number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


class _NoPointError(Exception):
    """Why a result has no point."""


def scaling_figure(
    name: str, runs: Iterable[str] = (), compute: Compute = "exaflops"
) -> ScalingFigure:
    """Figure 3, 4 or 5 with our runs beside the published points.

    Args:
      name: "3", "4" or "5".
      runs: directories of runs, or directories that hold runs.
      compute: the axis of Figure 5. There are no published points in device-hours.

    Raises:
      UserError: there is no such figure, or a directory holds no run.
    """
    if name not in _FIGURES:
        raise UserError(f"--figure={name}: there is no such figure; name one of 3, 4, 5")
    figure = _FIGURES[name]
    points, notes = [*figure.published(compute)], []
    for path in dict.fromkeys(given_path(each) for each in runs):
        for result in read_runs(path):
            own, reasons = _points_of(result, figure, compute)
            points += own
            notes += [f"{result.name} has no point: {reason}" for reason in reasons if not own]
    if name == "5":
        points = [*_averages(points), *points]
    is_in_hours = name == "5" and compute == "device_hours"
    x_label = "device-hours of pre-training" if is_in_hours else figure.x_label
    return ScalingFigure(
        f"arXiv 2010.11929v2, Figure {name}",
        figure.claim,
        x_label,
        figure.y_label,
        tuple(points),
        tuple(notes),
    )


class _Figure(NamedTuple):
    """How a figure is made.

    Attributes:
      published: its points, by the axis of compute.
      place: horizontal and vertical place of a score; raises `_NoPointError`.
    """

    claim: str
    x_label: str
    y_label: str
    published: Callable[[Compute], Iterator[Point]]
    place: Callable[[Scored, Compute], tuple[float, float]]


def _points_of(
    result: Result, figure: _Figure, compute: Compute
) -> tuple[list[Point], dict[str, None]]:
    points, reasons = [], dict.fromkeys([result.nothing] if result.nothing else [])
    for scored in result.scored:
        if scored.dataset == COST:
            continue
        try:
            x, y = figure.place(scored, compute)
        except _NoPointError as error:
            reasons[str(error)] = None
            continue
        points.append(Point(scored.dataset, str(scored.model), x, y, scored.weights))
    return points, reasons


def _figure_3(_: Compute) -> Iterator[Point]:
    for (data, scored), row in TABLE_5.rows.items():
        if scored == "imagenet":
            for model, figure in zip(TABLE_5.columns, row, strict=True):
                if figure is not None:
                    yield Point(scored, model, _images_of(data), figure.value)


def _figure_5(compute: Compute) -> Iterator[Point]:
    if compute == "exaflops":
        for model, epochs in TABLE_6.rows:
            x = TABLE_6.value((model, epochs), EXAFLOPS)
            for data in AVERAGE_5:
                yield Point(data, model, x, TABLE_6.value((model, epochs), data))


def _averages(points: Sequence[Point]) -> Iterator[Point]:
    """The means over the five data sets, of models that are scored on all of them."""
    by_model: dict[tuple[str, float, bool], dict[str, float]] = {}
    for point in points:
        key = (point.model, point.x, point.weights is None)
        by_model.setdefault(key, {})[point.panel] = point.y
    for (model, x, is_published), values in by_model.items():
        if values.keys() >= {*AVERAGE_5}:
            mean = statistics.fmean(values[data] for data in AVERAGE_5)
            yield Point(_AVERAGE, model, x, mean, None if is_published else "mean of runs")


def _by_images(scored: Scored, _: Compute) -> tuple[float, float]:
    return _pre_training_images(scored, fine_tuned=True), _score(scored, "top1")


def _by_subset(scored: Scored, _: Compute) -> tuple[float, float]:
    return _pre_training_images(scored, fine_tuned=False), _score(scored, "top1_5_shot")


def _by_compute(scored: Scored, compute: Compute) -> tuple[float, float]:
    _stages(scored, fine_tuned=True)
    cost = read_cost(_lineage(scored.weights)[0])
    value = None if cost is None else getattr(cost, compute)
    if not value:
        raise _NoPointError(f"its pre-training has no {compute} in cost.json")
    return value, _score(scored, "top1")


def _score(scored: Scored, name: str) -> float:
    if name not in scored.values:
        raise _NoPointError(f"it has no {name} on {scored.dataset}")
    return 100 * scored.values[name]


def _stages(scored: Scored, *, fine_tuned: bool) -> Sequence[Stage]:
    if not scored.stages:
        raise _NoPointError(scored.unknown)
    if len(scored.stages) != 1 + fine_tuned:
        wanted = "pre-trained, then fine-tuned once" if fine_tuned else "pre-trained and no more"
        raise _NoPointError(f"the figure's models are {wanted}")
    return scored.stages


def _pre_training_images(scored: Scored, *, fine_tuned: bool) -> float:
    """The images that a model was pre-trained on, each counted once."""
    data = _stages(scored, fine_tuned=fine_tuned)[0].dataset
    directories = _lineage(scored.weights)
    if len(directories) == 1 + fine_tuned:
        section: Mapping[str, object] = read_config(directories[0]).get("data") or {}
        if isinstance(subset := section.get("subset"), int):
            return subset
        data = dataset_named(str(section.get("dataset")))
    return _images_of(data)


def _images_of(data: str) -> float:
    if data not in DATASETS:
        raise _NoPointError(f"nothing tells how many images {data} has; train with data.subset")
    sizes = DATASETS[data].sizes
    return next(iter(sizes.values()))


def _lineage(weights: str) -> list[epath.Path]:
    """The run, and before it those that it started from, the first training first."""
    found = [given_path(weights)]
    while len(found) < _MOST_STAGES:
        named = str(read_config(found[0]).get("init_from") or "")
        if not named or not is_near(named, found[0]):
            break
        start = given_path(named)
        start = start.parent if start.name == "weights.npz" else start
        if not is_run(start):
            break
        found.insert(0, start)
    return found


def families(points: Iterable[Point]) -> dict[FamilyName, list[Point]]:
    """The points by the family of their model."""
    found: dict[FamilyName, list[Point]] = {}
    for point in points:
        found.setdefault(ModelConfig(point.model).family, []).append(point)
    return found


_FIGURES = {
    "3": _Figure(
        "On ImageNet the large models are behind the base models; with ImageNet-21k they are "
        "level, and only with JFT-300M the larger ones win",
        "images of pre-training",
        "top-1 after fine-tuning, %",
        _figure_3,
        _by_images,
    ),
    "4": _Figure(
        "ResNets are better with fewer images of pre-training, and ViTs with more: B/32 passes "
        "R50x1 between 9M and 90M, and L/16 passes R152x2",
        "images of pre-training",
        "5-shot top-1, %",
        lambda _: iter(()),
        _by_subset,
    ),
    "5": _Figure(
        "ViTs take two to four times less compute than ResNets for the same accuracy; hybrids are "
        "ahead of ViTs at small cost, and not at large",
        "exaFLOPs of pre-training",
        "top-1 after fine-tuning, %",
        _figure_5,
        _by_compute,
    ),
}
