"""Accuracy against compute and speed of axial models and those that they replace: Figure 13 (D.6).

The paper prints no values of it, so there are our own runs alone. Its speed is that of inference on
TPUv3; ours is that of training, which a run's metrics have: the median over its lines.
"""

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from vit_jax.analysis.macs import count_macs
from vit_jax.experiments.paper.page import Page
from vit_jax.experiments.paper.runs import read_runs
from vit_jax.experiments.paper.scored import COST, Scored
from vit_jax.experiments.report.record import RunRecord, read_run
from vit_jax.models.config import ModelConfig
from vit_jax.schema import build
from vit_jax.storage.paths import given_path

# The models of the figure, in the order of their accuracy there.
MODELS = (
    *("AxialViT-B/16", "ViT-B/16", "AxialViT-B/32", "ViT-B/32"),
    *("AxialResNet-50", "R50x1"),
)
# The scores that a point may have, the figure's own first, in words.
_SCORES = {"top1_5_shot": "5-shot top-1, %", "top1": "top-1, %"}
_CLAIM = (
    "AxialViT-B/32 and B/16 do better than ViT-B/32 and B/16, at more compute; AxialResNet-50 is "
    "a fair trade of accuracy for compute, but its plain form is very slow on TPUs"
)


class Point(NamedTuple):
    """One run, scored on one data set.

    Attributes:
      data: the data set.
      score: what `accuracy` is, in words.
      gflops: 10^9 floating-point operations of one image's forward pass, two a multiply-add.
      images_per_second: of training on one device, the time of evaluations left out; None if
        nothing tells.
      device: its kind, such as `cpu`.
      accuracy: in percent.
      weights: the run.
    """

    data: str
    score: str
    model: str
    gflops: float
    images_per_second: float | None
    device: str
    accuracy: float
    weights: str

    @property
    def panel(self) -> str:
        """What its accuracy is: points of one panel can be compared."""
        return f"{self.data}, {self.score}"


@dataclass(frozen=True)
class AxialFigure:
    """Figure 13 with runs of ours.

    Attributes:
      claim: what the paper says that it shows.
      notes: what is left out and why, and the order in the figure.
    """

    source: str
    claim: str
    points: tuple[Point, ...]
    notes: tuple[str, ...]

    def panels(self) -> dict[str, list[Point]]:
        """The points of each panel."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.panel, []).append(point)
        return found

    def as_page(self) -> Page:
        """A row for each run, then one for each model of the figure with our count of its FLOPs."""
        rows = [
            (
                *(p.panel, p.model, f"{p.gflops:.4g}"),
                "-" if p.images_per_second is None else f"{p.images_per_second:,.0f}",
                *(p.device, f"{p.accuracy:.2f}", p.weights),
            )
            for p in self.points
        ]
        rows += [
            (_IN_FIGURE, model, f"{gflops(ModelConfig(model, num_classes=1000)):.4g}", *4 * ("-",))
            for model in MODELS
        ]
        return Page(
            title=self.claim,
            source=self.source,
            heading=(
                *("panel", "model", "GFLOPs an image", "img/s a device", "device"),
                *("accuracy", "weights"),
            ),
            rows=tuple(rows),
            notes=self.notes,
            records=tuple(p._asdict() for p in self.points),
            left=2,
        )


_IN_FIGURE = "in the figure, at 224 pixels"


def gflops(model: ModelConfig) -> float:
    """10^9 floating-point operations of one image's forward pass, two a multiply-add."""
    return 2 * sum(count_macs(model).values()) / 1e9


def axial_figure(runs: Iterable[str] = ()) -> AxialFigure:
    """Figure 13 with our runs.

    Args:
      runs: directories of runs, or directories that hold runs.

    Raises:
      UserError: a directory holds no run.
    """
    points: list[Point] = []
    notes = [f"the order of their accuracies in the figure: {', '.join(MODELS)}"]
    for path in dict.fromkeys(given_path(each) for each in runs):
        for result in read_runs(path):
            record = read_run(result.name)
            own = [p for scored in result.scored for p in _points(scored, record)]
            points += own
            if not own:
                why = result.nothing or f"it has none of the scores {', '.join(_SCORES)}"
                notes.append(f"{result.name} has no point: {why}")
    devices = {point.device for point in points}
    if len(devices) > 1:
        notes.append(f"speeds of {', '.join(sorted(devices))} do not compare")
    return AxialFigure("arXiv 2010.11929v2, Figure 13", _CLAIM, tuple(points), tuple(notes))


def _points(scored: Scored, record: RunRecord) -> Iterator[Point]:
    name = next((name for name in _SCORES if name in scored.values), None)
    if scored.dataset == COST or name is None:
        return
    devices = record.versions.get("devices") or ["unknown"]
    logged = record.curves.get("time/images_per_second")
    yield Point(
        data=scored.dataset,
        score=_SCORES[name],
        model=str(scored.model),
        gflops=gflops(build(ModelConfig, record.config["model"])),
        images_per_second=logged and statistics.median(logged.values) / len(devices),
        device=", ".join(sorted({*map(str, devices)})),
        accuracy=100 * scored.values[name],
        weights=scored.weights,
    )
