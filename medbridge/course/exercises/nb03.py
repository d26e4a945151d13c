"""Checks of notebook 03: number of windows, relative boxes, the largest crop."""

import math

import numpy as np

from medbridge.course.exercises import Answer, exercise
from medbridge.focal import grid_boxes, relative_boxes


@exercise("3.1")
def number_of_windows(answer: Answer) -> None:
    # 2 whole steps first: there, rounding down is right, so that a count that is wrong lacks the + 1
    for height, width, crop, overlap in ((1024, 1024, 0.5, 0.5), (1024, 1024, 0.5, 0.25), (1024, 1024, 0.3, 0.25),
                                         (600, 1000, 0.5, 0.2), (1000, 600, 0.5, 0.2), (600, 1000, 1.0, 0.25),
                                         (512, 512, 1.0, 0.25)):  # fmt: skip
        want = len(grid_boxes(height, width, crop, overlap))
        along, too_long = ([max(0.0, (length - side) / (side * (1 - overlap))) for length in (height, width)]
                           for side in sorted((crop * height, crop * width)))
        answer.judge((height, width, crop, overlap), want, f"windows of {height} x {width}, crop {crop}, overlap {overlap}",
                     long_side=math.prod(math.ceil(n) + 1 for n in too_long), added=sum(math.ceil(n) + 1 for n in along), rtol=0,
                     whole_view=want + 1, not_rounded=math.prod(n + 1 for n in along),
                     rounded_down=math.prod(math.floor(n) + 1 for n in along), steps=math.prod(math.ceil(n) for n in along))


@exercise("3.2")
def relative(answer: Answer) -> None:
    square = np.array([[0, 0, 400, 400], [100, 50, 300, 250]], dtype=np.float32)
    wide = np.array([[0, -200, 1000, 800], [250, 0, 550, 300]], dtype=np.float32)
    for boxes, height, width in ((square, 400, 400), (wide, 600, 1000), (wide[:, [1, 0, 3, 2]], 1000, 600)):
        got, want = answer.ask(boxes, height, width, shape=boxes.shape), relative_boxes(boxes, height, width)
        answer.compare(got, want, f"film {height} x {width}: box {boxes[1].astype(int).tolist()} should become "
                       f"{np.round(want[1], 2).tolist()}, you give {np.round(got[1], 2).tolist()}", atol=1e-5,
                       stretched=boxes / np.array([width, height] * 2), no_corner=boxes / max(height, width),
                       beyond=got.max() > 1.001)


@exercise("3.3")
def largest_crop(answer: Answer) -> None:
    for d, p, size, short in ((20, 5, 128, 1024), (20, 8, 224, 1024), (12, 4, 224, 2048), (60, 4, 128, 1024)):
        exact = d * size / (p * short)
        answer.judge((d, p, size, short), min(1.0, exact), f"d={d}, p={p}, R={size}, S={short}", rtol=1e-6, above_one=exact,
                     inverse=min(1.0, 1 / exact), inverse_above_one=1 / exact, width=d * size / short)
