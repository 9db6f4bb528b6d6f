"""A figure of accuracies against data or compute, drawn: published points hollow, ours filled."""

import math

from vit_jax import pictures
from vit_jax.experiments.paper.scaling import ScalingFigure, families

# Inches of a panel.
_WIDTH, _HEIGHT = 5.2, 4.2
_COLUMNS = 3
_MARKERS = {"vit": "o", "hybrid": "D", "resnet": "s", "mixer": "^"}
_COLORS = {"vit": "tab:blue", "hybrid": "tab:purple", "resnet": "tab:gray", "mixer": "tab:green"}
_TITLES = {"vit": "ViT", "hybrid": "hybrid", "resnet": "ResNet", "mixer": "Mixer"}


def draw(figure: ScalingFigure, suffix: str) -> bytes:
    """The figure, a panel for each data set, with a logarithmic horizontal axis.

    Args:
      suffix: `.png` or `.svg`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    panels = figure.panels()
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    with pictures.style(9):
        drawn = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows + 0.6), layout="constrained")
        drawn.suptitle(f"{figure.source}. {figure.claim}.", wrap=True, fontsize=9)
        for number, (panel, points) in enumerate(panels.items()):
            axes = drawn.add_subplot(rows, columns, number + 1)
            axes.grid(True)
            for family, own in families(points).items():
                for is_ours in (False, True):
                    chosen = [p for p in own if (p.weights is not None) == is_ours]
                    if not chosen:
                        continue
                    color, whose = _COLORS.get(family, "black"), "ours" if is_ours else "published"
                    axes.scatter(
                        [p.x for p in chosen],
                        [p.y for p in chosen],
                        s=36,
                        marker=_MARKERS.get(family, "o"),
                        facecolors=color if is_ours else "none",
                        edgecolors=color,
                        label=f"{_TITLES.get(family, family)}, {whose}",
                    )
                    for point in chosen:
                        axes.annotate(
                            point.model,
                            (point.x, point.y),
                            # Hybrids lie among ViTs.
                            xytext=(4, -9) if family == "hybrid" else (4, 3),
                            textcoords="offset points",
                            fontsize=6,
                        )
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.margins(x=0.15)
            axes.set(title=panel, xlabel=figure.x_label, ylabel=figure.y_label)
            axes.legend(frameon=False, fontsize=7, loc="lower right")
    return pictures.as_bytes(drawn, suffix)
