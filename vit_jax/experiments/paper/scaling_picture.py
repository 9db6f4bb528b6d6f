"""A figure of accuracies against data or compute, drawn: published points hollow, ours filled."""

import math

from vit_jax import pictures
from vit_jax.experiments.paper.scaling import ScalingFigure, families
from vit_jax.models.sizes import FamilyName

# Inches of a panel.
WIDTH, HEIGHT = 5.2, 4.2
_COLUMNS = 3
MARKERS: dict[FamilyName, str] = {
    **{"vit": "o", "hybrid": "D", "resnet": "s", "mixer": "^"},
    **{"axial_vit": "P", "axial_resnet": "X"},
}
COLORS: dict[FamilyName, str] = {
    **{"vit": "tab:blue", "hybrid": "tab:purple", "resnet": "tab:gray", "mixer": "tab:green"},
    **{"axial_vit": "tab:red", "axial_resnet": "tab:brown"},
}
TITLES: dict[FamilyName, str] = {
    **{"vit": "ViT", "hybrid": "hybrid", "resnet": "ResNet", "mixer": "Mixer"},
    **{"axial_vit": "axial ViT", "axial_resnet": "AxialResNet"},
}


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
        drawn = Figure(figsize=(WIDTH * columns, HEIGHT * rows + 0.6), layout="constrained")
        drawn.suptitle(f"{figure.source}. {figure.claim}.", wrap=True, fontsize=9)
        for number, (panel, points) in enumerate(panels.items()):
            axes = drawn.add_subplot(rows, columns, number + 1)
            axes.grid(True)
            for family, own in families(points).items():
                for is_ours in (False, True):
                    chosen = [p for p in own if (p.weights is not None) == is_ours]
                    if not chosen:
                        continue
                    color, whose = COLORS[family], "ours" if is_ours else "published"
                    axes.scatter(
                        [p.x for p in chosen],
                        [p.y for p in chosen],
                        s=36,
                        marker=MARKERS[family],
                        facecolors=color if is_ours else "none",
                        edgecolors=color,
                        label=f"{TITLES[family]}, {whose}",
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
