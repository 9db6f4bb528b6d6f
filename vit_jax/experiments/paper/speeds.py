"""Figure 12 of the paper: speed and largest batch of inference, beside those measured here.

Timings lie in files that `benchmark inference --output=FILE.json` wrote. The paper prints no values
of this figure.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from vit_jax.experiments.benchmark.curves import Curves, Point, Values, largest, peaks
from vit_jax.experiments.benchmark.rates import read_values
from vit_jax.experiments.paper.page import Page

SOURCE = "arXiv 2010.11929v2, Figure 12 and appendix D.5, on a TPUv3 core"
TITLE = (
    "inference: most images a second over batch sizes, and the largest batch that fits, a device"
)
# As the figure has them.
MODELS = (
    *("BiT-R50x1", "BiT-R50x2", "ViT-B/32", "ViT-L/32", "ViT-B/16", "ViT-L/16", "ViT-H/14"),
    "BiT-R152x4",
)
IMAGE_SIZES = (64, 128, 224, 384, 512)
_SPEED = (
    "the paper: ViTs are about as fast as similar ResNets, and the cost of attention, with the "
    "fourth power of the image's side, only begins to show in the largest models at the largest "
    "images"
)
_MEMORY = "the paper: large ViTs fit clearly larger batches than ResNets"


class SpeedFigure(NamedTuple):
    """Figure 12 with timings of ours.

    Attributes:
      values: of all files together; None if there are none.
    """

    page: Page
    values: Values | None


def speed_figure(files: Iterable[str] = ()) -> SpeedFigure:
    """Figure 12 with the timings of files beside what the paper says of it.

    Raises:
      UserError: a file holds no benchmark of inference.
    """
    found = [read_values(file, "runs", "inference") for file in dict.fromkeys(files)]
    values = _together(found) if found else None
    speeds: Curves = {} if values is None else peaks(values)
    batches: Curves = {} if values is None else largest(values)
    rows, records = [], []
    for model in {**speeds, **batches} if found else MODELS:
        own = {point.x: point for point in speeds.get(model, [])}
        most = {point.x: point.y for point in batches.get(model, [])}
        for side in sorted({*own, *most}) if found else IMAGE_SIZES:
            rows.append(_row(model, side, own.get(side), most.get(side)))
            records.append(_record(model, side, own.get(side), most.get(side)))
    devices = ", ".join(dict.fromkeys(str(each["device"]) for each in found))
    return SpeedFigure(
        Page(
            source=SOURCE + (f"; ours on {devices}" if devices else ""),
            title=TITLE,
            heading=("model", "image", "img/s", "at a batch of", "largest batch"),
            rows=tuple(rows),
            notes=(
                _SPEED,
                *_growth(speeds),
                _MEMORY,
                *_memory(batches),
                *(_how_to_measure() if values is None else ()),
            ),
            records=tuple(records),
        ),
        values,
    )


def _together(found: Sequence[Values]) -> Values:
    """The results of several files; those of different devices are told apart by their settings."""
    is_mixed = len({values["device"] for values in found}) > 1

    def rows(key: str) -> list[Mapping[str, Any]]:
        return [
            {**row, "settings": f"{row['settings']} ({values['device']})".strip()}
            if is_mixed
            else row
            for values in found
            for row in values[key]
        ]

    return {"results": rows("results"), "largest": rows("largest")}


def _row(model: str, side: float, speed: Point | None, most: float | None) -> tuple[str, ...]:
    return (
        model,
        f"{side:.5g}",
        "" if speed is None else f"{speed.y:,.4g}",
        "" if speed is None else f"{speed.batch_size:,.10g}",
        "" if most is None else f"{most:,.10g}",
    )


def _record(model: str, side: float, speed: Point | None, most: float | None) -> dict[str, Any]:
    return {
        "model": model,
        "image_side": side,
        "images_per_second": None if speed is None else speed.y,
        "batch_size": None if speed is None else speed.batch_size,
        "largest_batch": most,
    }


def _growth(speeds: Curves) -> list[str]:
    """How the time of an image grows from the second largest image to the largest."""
    lines = []
    for model, points in speeds.items():
        if len(points) < 2:
            continue
        smaller, larger = points[-2:]
        power = math.log(smaller.y / larger.y) / math.log(larger.x / smaller.x)
        lines.append(
            f"here: {model} takes the power {power:.1f} of the side from {smaller.x:.4g} to "
            f"{larger.x:.4g} pixels (2 is the number of patches)"
        )
    return lines


def _memory(batches: Curves) -> list[str]:
    """The largest batches at the largest image that all models have."""
    sides = [{point.x for point in points} for points in batches.values()]
    common = set.intersection(*sides) if sides else set()
    if len(batches) < 2 or not common:
        return []
    side = max(common)
    sizes = {
        model: next(point.y for point in points if point.x == side)
        for model, points in batches.items()
    }
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    return [
        f"here, at {side:.4g} pixels: "
        + ", ".join(f"{model} {size:,.10g}" for model, size in ordered)
    ]


def _how_to_measure() -> list[str]:
    sizes = ",".join(map(str, IMAGE_SIZES))
    return [
        f"to measure it: python -m vit_jax benchmark inference --model {' '.join(MODELS)} "
        f"--image_sizes={sizes} --batch_sizes=1,8,64,512 --largest --output=speeds.json; then add "
        "--runs speeds.json"
    ]
