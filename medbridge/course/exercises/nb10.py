"""Checks of notebook 10: the number of trainings, Holm's correction, an interaction with its interval. [ours]"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from medbridge.course.exercises.register import AnswerError, exercise
from medbridge.metrics.bootstrap import bootstrap_aucs
from medbridge.metrics.evaluate import auc
from medbridge.studies.ablate import holm


@exercise("10.1")
def trainings(answer: Callable[[Sequence[int], int], tuple[int, int]]) -> None:
    """``answer(levels, seeds)``: how many trainings one factor at a time takes, and how many a full factorial."""
    for levels, seeds in (((3, 2, 4), 2), ((2, 2), 1), ((5,), 3), ((4, 3, 5, 3, 2, 4, 4, 2, 3), 2)):
        got = answer(levels, seeds)
        if got is None or np.shape(got) != (2,):
            raise AnswerError("give two numbers: one factor at a time, and the full factorial")
        one, full = (int(v) for v in got)
        want_one, want_full = seeds * (1 + sum(n - 1 for n in levels)), seeds * math.prod(levels)
        if (one, full) == (want_one, want_full):
            continue
        told = f"levels {list(levels)}, {seeds} seed(s): {want_one} and {want_full} trainings, you say {one} and {full}"
        if (one, full) == (want_full, want_one):
            hint = "the two numbers are the other way round"
        elif (one * seeds, full * seeds) == (want_one, want_full) and seeds > 1:
            hint = "each cell is trained for every seed"
        elif full != want_full:
            hint = ("levels of different factors multiply in a factorial" if full == seeds * sum(levels) else
                    "a factorial has one cell for each combination of levels")
        else:
            hint = {
                seeds * sum(levels): "you train the default once a factor; all factors share one default",
                seeds * sum(n - 1 for n in levels): "the default itself must be trained too",
                1 + seeds * sum(n - 1 for n in levels): "the default needs every seed too",
            }.get(one, "one default, and each other level of each factor")
        raise AnswerError(f"{told}; {hint}")


@exercise("10.2")
def holm_adjusted(answer: Callable[[np.ndarray], np.ndarray]) -> None:
    """``answer(p)``: Holm's adjusted p-values, in the order given."""
    p = np.array([0.03, 0.005, 0.9, 0.011, 0.012])
    want = holm(p)
    got = answer(p.copy())
    if got is None:
        raise AnswerError("the function returns nothing; return an array as long as p")
    got = np.asarray(got, dtype=np.float64)
    if got.shape != p.shape:
        raise AnswerError(f"give one number a p-value: an array of shape {p.shape}, not {got.shape}")
    if not np.allclose(got, want):
        order = np.argsort(p)
        steps = np.empty(len(p))
        steps[order] = p[order] * np.arange(len(p), 0, -1)
        rising = np.empty(len(p))
        rising[order] = p[order] * np.arange(1, len(p) + 1)
        falling = np.empty(len(p))  # Benjamini and Hochberg
        falling[order] = np.minimum.accumulate((p[order] * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
        for wrong, hint in (
            (np.sort(want), "the numbers are right, but sorted; put each back where its p-value was"),
            (np.minimum(1, len(p) * p),
             "this is Bonferroni's: every p-value times K; Holm multiplies the smallest by K, the next by K - 1"),
            (steps, "a larger p-value may not get a smaller adjusted one: take the running maximum in sorted order"),
            (np.minimum(1, rising), "the smallest p-value is multiplied by K, not by 1: by how many hypotheses are still open"),
            (falling, "this is Benjamini and Hochberg's, which bounds the share of false claims, not the chance of any"),
            (p, "nothing was corrected"),
        ):
            if np.allclose(got, wrong):
                raise AnswerError(hint)
        raise AnswerError(f"of p = {p.tolist()}, Holm's are {np.round(want, 3).tolist()}; you give {np.round(got, 3).tolist()}")
    high = np.asarray(answer(np.array([0.6, 0.7, 0.2])), dtype=np.float64)
    if (high > 1).any():
        raise AnswerError(f"p = [0.6, 0.7, 0.2] gives {high.tolist()}; a probability is at most 1")


@exercise("10.3")
def interaction(answer: Callable[..., tuple[float, float, float]]) -> None:
    """``answer(y, scores, patients, n_boot, rng)``: what two factors do together beyond each alone, and its 95 % interval."""
    rng = np.random.default_rng(8)
    patients = np.repeat(np.arange(60), 4)
    y = np.repeat((rng.random(60) < 0.4).astype(int), 4)
    person = np.repeat(rng.standard_normal(60), 4)
    gain = np.array([[0.2, 0.5], [0.6, 2.0]])
    scores = gain[:, :, None] * y + person + 0.3 * rng.standard_normal((2, 2, 240))
    value, lo, hi = _three(answer(y.copy(), scores.copy(), patients.copy(), 250, np.random.default_rng(0)))
    a = np.array([[float(auc(y, s)[0]) for s in row] for row in scores])
    true = a[1, 1] - a[0, 1] - a[1, 0] + a[0, 0]
    for wrong, hint in (
        (-true, "the sign is wrong: it is positive where both together bring more than the sum of each alone"),
        (a[1, 1] - a[0, 0], "this is what both bring together; take away what each brings alone"),
        (true / 2, "take the plain difference of differences, not half of it"),
        (a[1, 1] - a[0, 1], "this is the effect of the first factor beside the second; take away its effect without the second"),
        (a[1, 1] - a[1, 0], "this is the effect of the second factor beside the first; take away its effect without the first"),
    ):
        if math.isclose(value, wrong, abs_tol=1e-9):
            raise AnswerError(hint)
    if not math.isclose(value, true, abs_tol=1e-9):
        raise AnswerError(f"on all films (AUC11 - AUC01) - (AUC10 - AUC00) is {true:.4f}; you give {value:.4f}")
    if not lo < value < hi:
        raise AnswerError(
            f"your interval [{lo:.3f}, {hi:.3f}] does not hold the value {value:.3f}; take percentiles 2.5 and 97.5")
    alike = np.broadcast_to(scores[0, 0], scores.shape).copy()
    same = _three(answer(y.copy(), alike, patients.copy(), 20, np.random.default_rng(0)))
    if max(abs(same[1]), abs(same[2])) > 1e-9:
        raise AnswerError(
            f"four equal models have no interaction in any resample, but your interval is [{same[1]:.3f}, {same[2]:.3f}]; "
            "score all four on the same resample")
    width = {"patients": _width(y, scores, patients), "films": _width(y, scores, np.arange(240))}
    share = {kind: (hi - lo) / w for kind, w in width.items()}
    if abs(share["films"] - 1) < min(0.25, abs(share["patients"] - 1)):
        raise AnswerError("your interval is as narrow as if every film were a patient; draw patients, with all their films")
    if not 0.75 < share["patients"] < 1.35:
        wide = "wide" if share["patients"] > 1 else "narrow"
        raise AnswerError(
            f"your interval is {share['patients']:.2f} times as long as it should be, too {wide}; draw as many patients as "
            "there are, with replacement; a patient drawn twice brings its films twice; take percentiles 2.5 and 97.5")
    few = np.zeros(8, dtype=int)
    few[:2] = 1
    found = _three(answer(few, np.tile(np.arange(8.0), (2, 2, 1)), np.arange(8), 100, np.random.default_rng(1)))
    if not np.isfinite(found).all():
        raise AnswerError("a resample without a positive film has no AUC; leave such resamples out of the percentiles")


def _three(got: object) -> tuple[float, float, float]:
    if got is None or np.shape(got) != (3,):
        raise AnswerError("give three numbers: the interaction, and the lower and upper end of its interval")
    value, lo, hi = (float(v) for v in got)  # type: ignore[attr-defined]
    return value, lo, hi


def _width(y: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
    runs = [s[:, None] for s in scores.reshape(4, -1)]
    a = bootstrap_aucs(y[:, None].astype(float), runs, np.ones((len(y), 1), dtype=bool), groups, 1000, 3)[:, :, 0]
    lo, hi = np.nanpercentile(a[3] - a[1] - a[2] + a[0], [2.5, 97.5])
    return float(hi - lo)
