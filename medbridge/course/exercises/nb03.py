"""Checks of notebook 03: number of windows, relative boxes, the largest crop. [ours]"""

import math

import numpy as np

from medbridge.course.exercises.register import Answer, ask, compare, exercise, judge
from medbridge.focal import grid_boxes, relative_boxes


def _steps(height: int, width: int, overlap: float, side: float) -> list[float]:
    return [max(0.0, (length - side) / (side * (1 - overlap))) for length in (height, width)]


@exercise("3.1")
def number_of_windows(answer: Answer) -> None:
    # 2 whole steps first: there, rounding down is right, so that a count that is wrong lacks the + 1
    for height, width, crop, overlap in ((1024, 1024, 0.5, 0.5), (1024, 1024, 0.5, 0.25), (1024, 1024, 0.3, 0.25),
                                         (600, 1000, 0.5, 0.2), (1000, 600, 0.5, 0.2), (600, 1000, 1.0, 0.25),
                                         (512, 512, 1.0, 0.25)):  # fmt: skip
        want = len(grid_boxes(height, width, crop, overlap))
        along, too_long = (_steps(height, width, overlap, crop * side) for side in sorted((height, width)))
        judge(answer, (height, width, crop, overlap), want, [
            (math.prod(math.ceil(n) + 1 for n in too_long), "a window's side is crop times the short side"),
            (sum(math.ceil(n) + 1 for n in along), "multiply the windows along the two axes"),
            (want + 1, "the whole view is not a window; leave it out"),
            (math.prod(n + 1 for n in along), "round the number of steps up to a whole number"),
            (math.prod(math.floor(n) + 1 for n in along), "round the number of steps up, or the edge is not seen"),
            (math.prod(math.ceil(n) for n in along), "n steps make n + 1 windows along an axis"),
        ], "count along each axis the steps of at most side * (1 - overlap)",
            f"windows of {height} x {width}, crop {crop}, overlap {overlap}", "one whole number: the number of windows", rtol=0)


@exercise("3.2")
def relative(answer: Answer) -> None:
    square = np.array([[0, 0, 400, 400], [100, 50, 300, 250]], dtype=np.float32)
    wide = np.array([[0, -200, 1000, 800], [250, 0, 550, 300]], dtype=np.float32)
    for boxes, height, width in ((square, 400, 400), (wide, 600, 1000), (wide[:, [1, 0, 3, 2]], 1000, 600)):
        got = ask(answer, boxes, height, width, shape=boxes.shape, give=f"(N, 4), here {boxes.shape}")
        want = relative_boxes(boxes, height, width)
        compare(got, want, [
            (boxes / np.array([width, height] * 2), "x by the width and y by the height stretches; divide both by the same side"),
            (boxes / max(height, width), "the whole view of a film that is not square begins outside it; subtract its corner"),
            (got.max() > 1.001, "nothing can exceed the whole view, but your largest value is above 1; divide by the long side"),
        ], "subtract the whole view's corner, then divide by its side",
            f"film {height} x {width}: box {boxes[1].astype(int).tolist()} should become {np.round(want[1], 2).tolist()}, "
            f"you give {np.round(got[1], 2).tolist()}", atol=1e-5)


@exercise("3.3")
def largest_crop(answer: Answer) -> None:
    for d, p, size, short in ((20, 5, 128, 1024), (20, 8, 224, 1024), (12, 4, 224, 2048), (60, 4, 128, 1024)):
        exact = d * size / (p * short)
        judge(answer, (d, p, size, short), min(1.0, exact), [
            (exact, "a window cannot be larger than the film: the crop is at most 1"),
            (min(1.0, 1 / exact), "the fraction is upside down; a smaller nodule needs a smaller window"),
            (1 / exact, "the fraction is upside down; a smaller nodule needs a smaller window"),
            (d * size / short, "this is the nodule's width in the whole film's view; divide by the width that is wanted"),
        ], "solve d * R / (c * S) = p for c", f"d={d}, p={p}, R={size}, S={short}", "one number: the crop", rtol=1e-6)
