"""Checks of notebook 10: the number of trainings, Holm's correction, an interaction with its interval. [ours]"""

import math

import numpy as np

from medbridge.course.exercises.nb07 import holm_adjusted
from medbridge.course.exercises.nb09 import judge_interval
from medbridge.course.exercises.register import Answer, ask, compare, exercise


@exercise("10.1")
def trainings(answer: Answer) -> None:
    for levels, seeds in (((3, 2, 4), 2), ((2, 2), 1), ((5,), 3), ((4, 3, 5, 3, 2, 4, 4, 2, 3), 2)):
        one, full = ask(answer, levels, seeds, shape=(2,), give="two numbers: one factor at a time, and the full factorial")
        others = sum(n - 1 for n in levels)
        want_one, want_full = seeds * (1 + others), seeds * math.prod(levels)
        compare((one, full), (want_one, want_full), [
            ((one, full) == (want_full, want_one), "the two numbers are the other way round"),
            ((one * seeds, full * seeds) == (want_one, want_full), "each cell is trained for every seed"),
            (full == seeds * sum(levels) != want_full, "levels of different factors multiply in a factorial"),
            (full != want_full, "a factorial has one cell for each combination of levels"),
            (one == 1 + seeds * others, "the default needs every seed too"),
            (one == seeds * others, "the default itself must be trained too"),
            (one == seeds * sum(levels), "you train the default once per factor; all factors share one default"),
        ], "one default, and each other level of each factor", f"levels {list(levels)}, {seeds} seed(s)", rtol=0)


exercise("10.2")(holm_adjusted)


def _interaction(a: np.ndarray) -> np.ndarray:
    return a[1, 1] - a[0, 1] - a[1, 0] + a[0, 0]


@exercise("10.3")
def interaction(answer: Answer) -> None:
    judge_interval(answer, "interaction", 8, np.array([[0.2, 0.5], [0.6, 2.0]]), _interaction, lambda a: [
        (-_interaction(a), "the sign is wrong: it is positive where both together bring more than the sum of each alone"),
        (a[1, 1] - a[0, 0], "this is what both bring together; take away what each brings alone"),
        (_interaction(a) / 2, "take the plain difference of differences, not half of it"),
        (a[1, 1] - a[0, 1], "this is the effect of the first factor beside the second; take away its effect without the second"),
        (a[1, 1] - a[1, 0], "this is the effect of the second factor beside the first; take away its effect without the first"),
    ], "(AUC11 - AUC01) - (AUC10 - AUC00)")
