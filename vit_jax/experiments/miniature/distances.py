"""How far the miniature's models look: mean attention distance (figures 7 and 11, D.7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vit_jax import pictures
from vit_jax.config import load_config
from vit_jax.data.sources.open import open_source
from vit_jax.experiments.analyses.attention import distances_of_images
from vit_jax.experiments.miniature.plan import HYBRID, VIT
from vit_jax.experiments.studies.running import CellResult, planned
from vit_jax.experiments.studies.study import Cell, Claim, Difference, difference
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.weights.load import load_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = 128
"""Images of the mean, as many as the paper takes; of the test split."""


class _Statement(NamedTuple):
    """A claim, and the numbers that decide it.

    Attributes:
      numbers: from the distances by cell, each [depth, heads], the better and the worse, in pixels.
    """

    claim: Claim
    numbers: Callable[[Mapping[str, np.ndarray]], tuple[float, float]]


_DEEPER = _Statement(
    Claim(
        "higher layers attend further",
        "section 4.5, Figure 7",
        better="the ViT's last block",
        worse="its first",
    ),
    lambda found: (float(found[VIT][-1].mean()), float(found[VIT][0].mean())),
)
_MIXED = _Statement(
    Claim(
        "in the lowest layer some heads attend much further than others",
        "section 4.5, Figure 7; more than twice as far, where the paper states no number",
        better="the furthest head of the ViT's first block",
        worse="twice its nearest",
    ),
    lambda found: (float(found[VIT][0].max()), 2 * float(found[VIT][0].min())),
)
_HYBRID = _Statement(
    Claim(
        "a hybrid lacks the very local heads of low layers",
        "section 4.5, Figure 11",
        better="the nearest head of the hybrid's first block",
        worse="that of the ViT",
    ),
    lambda found: (float(found[HYBRID][0].min()), float(found[VIT][0].min())),
)


class Distances(NamedTuple):
    """What was measured.

    Attributes:
      means: by cell, float64 [seeds, depth, heads], in pixels; the seeds that did not diverge.
      verdicts: the claims that these decide, with differences in pixels.
    """

    means: dict[str, np.ndarray]
    verdicts: list[tuple[Claim, Difference]]


def measure(results: Sequence[CellResult], workdir: Path, seeds: Sequence[int]) -> Distances:
    """Measures the ViT and, where there is one, the hybrid, of all seeds that did not diverge."""
    cells = {
        result.cell.name: (result.cell, [s for s in seeds if s not in result.diverged])
        for result in results
        if result.cell.name in (VIT, HYBRID)
    }
    means = {
        name: np.stack([_of_run(cell, workdir, seed) for seed in kept])
        for name, (cell, kept) in cells.items()
        if kept
    }
    verdicts = []
    for statement, needed in ((_DEEPER, {VIT}), (_MIXED, {VIT}), (_HYBRID, {VIT, HYBRID})):
        if needed <= means.keys():
            pairs = [
                statement.numbers({name: means[name][i] for name in needed})
                for i in range(min(len(means[name]) for name in needed))
            ]
            better, worse = zip(*pairs, strict=True)
            verdicts.append((statement.claim, difference(better, worse)))
    return Distances(means, verdicts)


def _of_run(cell: Cell, workdir: Path, seed: int) -> np.ndarray:
    """The mean distances of one run, float64 [depth, heads]."""
    data = build(TrainConfig, load_config(cell.config, cell.changes)).data
    source = open_source(data.dataset, f"test[:{IMAGES}]", data_dir=data.data_dir)
    model = load_model(weights=planned(cell, workdir, seed).directory)
    return distances_of_images(model, source).rows["distances"].mean(axis=0, dtype=np.float64)


def draw(distances: Distances) -> Figure:
    """A panel for each model: a point for each head, the mean over the seeds."""
    from matplotlib.figure import Figure

    with pictures.style(9):
        count = len(distances.means)
        figure = Figure(figsize=(3.4 * count, 3.2), layout="constrained")
        axes = figure.subplots(1, count, sharey=True, squeeze=False)[0]
        for each, (name, means) in zip(axes, distances.means.items(), strict=True):
            blocks = np.arange(1, means.shape[1] + 1)
            # Which head is which differs between seeds: they are compared by their order.
            for head in np.sort(means, axis=-1).mean(axis=0).T:
                each.scatter(blocks, head, s=18, color="tab:blue")
            each.set_xticks(blocks)
            each.set_xlim(0.5, len(blocks) + 0.5)
            each.set_xlabel("block")
            each.set_title(name, loc="left")
            each.grid(True, axis="y")
        # The margin of a scale that does not begin at 0 would cut the highest points.
        axes[0].set_ylim(0, 1.05 * max(means.max() for means in distances.means.values()))
        axes[0].set_ylabel("mean attention distance (pixels)")
    return figure
