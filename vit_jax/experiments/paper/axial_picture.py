"""Figure 13, drawn: accuracy against compute on the left, against speed on the right."""

from vit_jax import pictures
from vit_jax.experiments.paper.axial import AxialFigure
from vit_jax.experiments.paper.scaling_picture import COLORS, HEIGHT, MARKERS, TITLES, WIDTH
from vit_jax.models.config import ModelConfig

_ACROSS = {
    "gflops": "GFLOPs of one image, forward",
    "images_per_second": "img/s a device, training",
}


def draw(figure: AxialFigure, suffix: str) -> bytes:
    """The figure, a row for each data set and score, with logarithmic horizontal axes.

    Args:
      suffix: `.png` or `.svg`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    panels = figure.panels()
    with pictures.style(9):
        drawn = Figure(figsize=(2 * WIDTH, HEIGHT * len(panels) + 0.6), layout="constrained")
        drawn.suptitle(f"{figure.source}. {figure.claim}.", wrap=True, fontsize=9)
        for row, points in enumerate(panels.values()):
            for column, (across, label) in enumerate(_ACROSS.items()):
                axes = drawn.add_subplot(len(panels), 2, 2 * row + column + 1)
                axes.grid(True)
                labelled = set[str]()
                for point in points:
                    x = getattr(point, across)
                    if x is None:
                        continue
                    family = ModelConfig(point.model).family
                    axes.scatter(
                        [x],
                        [point.accuracy],
                        s=36,
                        marker=MARKERS[family],
                        color=COLORS[family],
                        label=None if family in labelled else TITLES[family],
                    )
                    labelled.add(family)
                    axes.annotate(
                        point.model,
                        (x, point.accuracy),
                        xytext=(4, 3),
                        textcoords="offset points",
                        fontsize=6,
                    )
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
                axes.xaxis.set_minor_formatter(NullFormatter())
                axes.margins(x=0.15)
                axes.set(title=points[0].data, xlabel=label, ylabel=points[0].score)
                if labelled:
                    axes.legend(frameon=False, fontsize=7, loc="lower right")
    return pictures.as_bytes(drawn, suffix)
