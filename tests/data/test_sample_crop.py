"""Random crops have the distribution of TensorFlow's `sample_distorted_bounding_box`.

Expected are the shares that its kernel (`sample_distorted_bounding_box_op.cc`, TensorFlow 2.16)
gives each size of a box, added up over a fine grid of aspects and all heights.
"""

from collections import Counter

import numpy as np
import pytest
import scipy.stats

from vit_jax.data.images.geometry import sample_crop

DRAWS = 100_000
Size = tuple[int, int]


def shares(height: int, width: int, area: tuple[float, float]) -> dict[Size, float]:
    """The probability of each (height, width) of a box, from the published algorithm."""
    f32 = np.float32
    count = 20_000
    step = f32(4 / 3) - f32(3 / 4)
    aspects = ((np.arange(count) + 0.5) / count).astype(f32) * step + f32(3 / 4)
    smallest = f32(area[0]) * f32(width) * f32(height)
    largest = f32(area[1]) * f32(width) * f32(height)
    lowest = np.rint(np.sqrt(smallest / aspects)).astype(int)
    tallest = np.rint(np.sqrt(largest / aspects)).astype(int)
    too_wide = np.rint(tallest.astype(f32) * aspects) > width
    fitting = ((width + 0.5 - 1e-7) / aspects.astype(float)).astype(int)
    fitting -= np.rint(fitting.astype(f32) * aspects) > width
    tallest = np.minimum(np.where(too_wide, fitting, tallest), height)
    lowest = np.minimum(lowest, tallest)
    found = np.zeros((height + 1, width + 1))
    for offset in range(int((tallest - lowest).max()) + 1):
        drawn = lowest + offset <= tallest
        heights, aspect = lowest[drawn] + offset, aspects[drawn]
        share = 1 / (tallest - lowest + 1)[drawn]

        def widths(heights: np.ndarray, aspect: np.ndarray = aspect) -> np.ndarray:
            return np.rint(heights.astype(f32) * aspect).astype(int)

        heights = heights + (heights * widths(heights) < smallest)
        heights = heights - (heights * widths(heights) > largest)
        boxes = heights * widths(heights)
        kept = (smallest <= boxes) & (boxes <= largest) & (heights <= height)
        kept &= (widths(heights) <= width) & (boxes > 0)
        np.add.at(found, (heights[kept], widths(heights)[kept]), share[kept])
    # What fits nowhere is drawn again.
    found /= found.sum()
    return {(int(y), int(x)): float(found[y, x]) for y, x in np.argwhere(found)}


def is_likely(observed: list[float], expected: list[float]) -> bool:
    """Pearson's test; rare cells are joined, as its distribution asks for."""
    pairs = sorted(zip(expected, observed, strict=True), reverse=True)
    common = [(want, got) for want, got in pairs if want >= 10]
    rest = [(want, got) for want, got in pairs if want < 10]
    if rest:
        common.append((sum(want for want, _ in rest), sum(got for _, got in rest)))
    want, got = np.array(common, float).T
    return scipy.stats.chisquare(got, want * got.sum() / want.sum()).pvalue > 1e-4


@pytest.mark.parametrize(
    ("height", "width", "area"),
    [
        (375, 500, (0.05, 1.0)),
        (32, 32, (0.05, 1.0)),
        # Few sizes fit, and many a box is mended by a row.
        (40, 20, (0.3, 0.34)),
    ],
)
def test_offsets_areas_and_aspects_are_tensorflows(
    height: int, width: int, area: tuple[float, float]
) -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([sample_crop(height, width, area, rng) for _ in range(DRAWS)])
    left, top, right, bottom = boxes.T
    heights, widths = bottom - top, right - left
    expected = shares(height, width, area)
    observed = Counter(zip(heights.tolist(), widths.tolist(), strict=True))
    assert set(observed) <= set(expected)
    sizes = list(expected)
    assert is_likely([observed[s] for s in sizes], [expected[s] * DRAWS for s in sizes])
    # Areas and aspects by themselves, which joins the rare sizes in another way.
    for of_size in (lambda h, w: h * w / (height * width), lambda h, w: w / h):
        values = np.array([of_size(*size) for size in sizes])
        mean = np.average(values, weights=list(expected.values()))
        deviation = np.sqrt(np.average((values - mean) ** 2, weights=list(expected.values())))
        found = of_size(heights, widths).mean()
        assert abs(found - mean) < 4 * deviation / np.sqrt(DRAWS)
    for first, box, side in ((top, heights, height), (left, widths, width)):
        room = side - box
        assert (first[room == 0] == 0).all()
        # Never the last place, where the box would end with the axis.
        inside = room > 0
        assert (first[inside] < room[inside]).all()
        # Each of the other places equally often: 0 to room - 1.
        for each in np.unique(room[inside]):
            at = first[room == each]
            if each > 1 and len(at) >= 20 * each:
                counts = np.bincount(at, minlength=each)
                assert is_likely(counts.tolist(), [len(at) / each] * int(each))
        place = (first[inside] + 0.5) / room[inside]
        assert abs(place.mean() - 0.5) < 4 * np.sqrt(1 / 12 / inside.sum())
