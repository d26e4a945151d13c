"""Checks of notebook 10: the number of trainings, Holm's correction, an interaction with its interval."""

import math

import numpy as np

from medbridge.course.exercises import Answer, exercise
from medbridge.course.exercises.nb07 import holm_adjusted
from medbridge.course.exercises.nb09 import judge_interval


@exercise("10.1")
def trainings(answer: Answer) -> None:
    for levels, seeds in (((3, 2, 4), 2), ((2, 2), 1), ((5,), 3), ((4, 3, 5, 3, 2, 4, 4, 2, 3), 2)):
        one, full = answer.ask(levels, seeds, shape=(2,))
        others = sum(n - 1 for n in levels)
        want_one, want_full = seeds * (1 + others), seeds * math.prod(levels)
        answer.compare((one, full), (want_one, want_full), f"levels {list(levels)}, {seeds} seed(s)",
                       reverse=(one, full) == (want_full, want_one),
                       no_seeds=(one * seeds, full * seeds) == (want_one, want_full),
                       added=full == seeds * sum(levels) != want_full, combinations=full != want_full,
                       default_once=one == 1 + seeds * others, no_default=one == seeds * others,
                       many_defaults=one == seeds * sum(levels), rtol=0)


exercise("10.2")(holm_adjusted)


def _interaction(a: np.ndarray) -> np.ndarray:
    return a[1, 1] - a[0, 1] - a[1, 0] + a[0, 0]


@exercise("10.3")
def interaction(answer: Answer) -> None:
    judge_interval(answer, 8, np.array([[0.2, 0.5], [0.6, 2.0]]), _interaction, lambda a: {
        "sign": -_interaction(a), "both": a[1, 1] - a[0, 0], "half": _interaction(a) / 2, "first": a[1, 1] - a[0, 1],
        "second": a[1, 1] - a[1, 0]}, "(AUC11 - AUC01) - (AUC10 - AUC00)")
