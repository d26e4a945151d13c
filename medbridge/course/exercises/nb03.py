"""Checks of notebook 03: number of windows, relative boxes, the largest crop. [ours]"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from medbridge.course.exercises.register import AnswerError, exercise
from medbridge.focal import grid_boxes, relative_boxes


def _steps(length: int, side: float, overlap: float) -> float:
    return (length - side) / (side * (1 - overlap))


@exercise("3.1")
def number_of_windows(answer: Callable[[int, int, float, float], int]) -> None:
    # 2 whole steps first: there, rounding down is right, so that a count that is wrong lacks the + 1
    cases = [(1024, 1024, 0.5, 0.5), (1024, 1024, 0.5, 0.25), (1024, 1024, 0.3, 0.25), (600, 1000, 0.5, 0.2),
             (1000, 600, 0.5, 0.2), (600, 1000, 1.0, 0.25), (512, 512, 1.0, 0.25)]  # fmt: skip
    for height, width, crop, overlap in cases:
        got = answer(height, width, crop, overlap)
        if got is None or np.ndim(got) != 0:
            raise AnswerError("give one whole number: the number of windows")
        want = len(grid_boxes(height, width, crop, overlap))
        if got == want:
            continue
        side = crop * min(height, width)
        along = [_steps(length, side, overlap) for length in (height, width)]
        long_side = crop * max(height, width)
        long_along = [max(0.0, _steps(length, long_side, overlap)) for length in (height, width)]
        hint = {
            math.prod(math.ceil(n) for n in along): "n steps make n + 1 windows along an axis",
            math.prod(math.floor(n) + 1 for n in along): "round the number of steps up, or the edge is not seen",
            math.prod(n + 1 for n in along): "round the number of steps up to a whole number",
            want + 1: "the whole view is not a window; leave it out",
            sum(math.ceil(n) + 1 for n in along): "multiply the windows along the two axes",
            math.prod(math.ceil(n) + 1 for n in long_along): "a window's side is crop times the short side",
        }.get(got, "count along each axis the steps of at most side * (1 - overlap)")
        raise AnswerError(
            f"{height} x {width}, crop {crop}, overlap {overlap} has {want} windows and you count {got:g}; {hint}"
        )


@exercise("3.2")
def relative(answer: Callable[[np.ndarray, int, int], np.ndarray]) -> None:
    square = np.array([[0, 0, 400, 400], [100, 50, 300, 250]], dtype=np.float32)
    wide = np.array([[0, -200, 1000, 800], [250, 0, 550, 300]], dtype=np.float32)
    for boxes, height, width in ((square, 400, 400), (wide, 600, 1000), (wide[:, [1, 0, 3, 2]], 1000, 600)):
        got = answer(boxes.copy(), height, width)
        if got is None or np.shape(got) != boxes.shape:
            raise AnswerError(f"for boxes {boxes.shape} the result has shape {np.shape(got)}; give (N, 4)")
        got, want = np.asarray(got, dtype=np.float64), relative_boxes(boxes, height, width)
        if np.allclose(got, want, atol=1e-5):
            continue
        if np.allclose(got, boxes / np.array([width, height, width, height]), atol=1e-5):
            hint = "x was divided by the width and y by the height, which stretches; divide both by the same side"
        elif np.allclose(got, boxes / max(height, width), atol=1e-5):
            hint = "the whole view of a film that is not square begins outside it; subtract its corner first"
        elif np.allclose(got, (boxes - want[0, 0]) / min(height, width), atol=1e-5) or got.max() > 1.001:
            hint = "nothing can exceed the whole view, but your largest value is above 1; divide by the long side"
        else:
            hint = "subtract the whole view's corner, then divide by its side"
        raise AnswerError(
            f"film {height} x {width}: box {boxes[1].astype(int).tolist()} should become "
            f"{np.round(want[1], 2).tolist()}, you give {np.round(got[1], 2).tolist()}; {hint}"
        )


@exercise("3.3")
def largest_crop(answer: Callable[[float, float, int, int], float]) -> None:
    for d, p, size, short in ((20, 5, 128, 1024), (20, 8, 224, 1024), (12, 4, 224, 2048), (60, 4, 128, 1024)):
        got = answer(d, p, size, short)
        if got is None or np.ndim(got) != 0:
            raise AnswerError("give one number: the crop")
        exact = d * size / (p * short)
        if math.isclose(got, min(1.0, exact), rel_tol=1e-6):
            continue
        if exact > 1 and math.isclose(got, exact, rel_tol=1e-6):
            hint = "a window cannot be larger than the film: the crop is at most 1"
        elif math.isclose(got, min(1.0, 1 / exact), rel_tol=1e-6) or math.isclose(got, 1 / exact, rel_tol=1e-6):
            hint = "the fraction is upside down; a smaller nodule needs a smaller window"
        elif math.isclose(got, d * size / short, rel_tol=1e-6):
            hint = "this is the nodule's width in the whole film's view; divide by the width that is wanted"
        else:
            hint = "solve d * R / (c * S) = p for c"
        raise AnswerError(f"d={d}, p={p}, R={size}, S={short}: your crop is {got:.4g}; {hint}")
