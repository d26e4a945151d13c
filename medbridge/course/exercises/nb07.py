"""Checks of notebook 07: mean AUC over what is defined, a threshold for a specificity, Holm's correction, miss rates. [ours]"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from medbridge.course.exercises.register import AnswerError, exercise
from medbridge.metrics.bootstrap import defined_mean
from medbridge.metrics.evaluate import auc


@exercise("7.1")
def macro(answer: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[float, int]]) -> None:
    """``answer(y, scores, mask)``: mean AUC over the labels that have one, and their number."""
    rng = np.random.default_rng(0)
    y = (rng.random((40, 4)) < 0.4).astype(float)
    scores = 1.5 * y + rng.normal(size=y.shape)
    mask = rng.random(y.shape) < 0.7
    y[mask[:, 1], 1] = 0  # label 1: one class among its known films, both among all
    y[~mask[:, 1], 1] = 1
    each = auc(y, scores, mask)
    value, count = _pair(answer(y.copy(), scores.copy(), mask.copy()))
    want = float(defined_mean(each))
    if not (math.isclose(value, want, abs_tol=1e-9) and count == 3):
        ignored = auc(y, scores)
        if math.isnan(value):
            hint = "one undefined label makes the whole mean NaN; leave it out of the mean"
        elif math.isclose(value, np.nan_to_num(each, nan=0.5).mean(), abs_tol=1e-9):
            hint = "0.5 was put in for a label that has no AUC; leave it out, it is no result"
        elif math.isclose(value, np.nan_to_num(each).mean(), abs_tol=1e-9):
            hint = "0 was put in for a label that has no AUC; leave it out, it is no result"
        elif math.isclose(value, float(defined_mean(ignored)), abs_tol=1e-9):
            hint = "unknown films were counted; take the films of a label where the mask is True"
        elif math.isclose(value, want, abs_tol=1e-9):
            hint = "the mean is right; the second number is how many labels are in it"
        else:
            hint = "take the AUC of each label over its known films, then the mean over the labels with both classes"
        raise AnswerError(f"of 4 labels 3 have an AUC, their mean is {want:.3f}; you say {value:.3f} of {count}; {hint}")
    none, count = _pair(answer(np.zeros((5, 2)), rng.random((5, 2)), np.ones((5, 2), dtype=bool)))
    if not math.isnan(none) or count != 0:
        raise AnswerError(f"where no label has both classes return NaN and 0; you give {none} and {count}")


@exercise("7.2")
def threshold(answer: Callable[[np.ndarray, np.ndarray, float], float]) -> None:
    """``answer(y, scores, specificity)``: the lowest observed score that reaches the specificity as a threshold."""
    ten = np.r_[np.zeros(10), np.ones(5)], np.r_[np.arange(10) / 10, 0.35, 0.55, 0.85, 0.95, 0.97]
    tied = np.r_[np.zeros(8), np.ones(4)], np.array([0.1, 0.2, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.3, 0.5, 0.6, 0.9])
    for (y, scores), wanted in ((ten, 0.8), (ten, 0.9), (ten, 0.55), (tied, 0.5), (tied, 0.7), (ten, 1.0), (tied, 0.0)):
        got = answer(y.copy(), scores.copy(), wanted)
        if got is None or np.ndim(got) != 0:
            raise AnswerError("give one number: the threshold")
        want = _lowest(y, scores, wanted)
        if math.isclose(got, want, abs_tol=1e-12):
            continue
        reached, negatives = (scores[y == 0] < got).mean(), scores[y == 0]
        if math.isclose(got, np.quantile(negatives, wanted), abs_tol=1e-9) and not np.isclose(scores, got).any():
            hint = "this lies between two observed scores; take an observed one"
        elif math.isclose(got, _lowest(1 - y, scores, wanted), abs_tol=1e-12):
            hint = "specificity is about the films without the finding (y == 0)"
        elif reached < wanted - 1e-9 and (negatives <= got).mean() >= wanted - 1e-9:
            hint = "a score that equals the threshold is told yes: such a negative is a false alarm"
        elif reached < wanted - 1e-9:
            hint = f"its specificity is only {reached:.2f}"
        else:
            hint = f"its specificity is {reached:.2f}, and a lower threshold is good enough, with more true positives"
        raise AnswerError(f"negatives {np.unique(negatives).tolist()}, specificity {wanted:g}: the threshold is {want:g}, "
                          f"you give {got:g}; {hint}")
    top = answer(np.array([0.0, 0.0, 1.0]), np.array([0.9, 0.2, 0.5]), 1.0)
    if top is None or not np.isinf(top):
        raise AnswerError("a negative has the highest score of all: no observed score reaches specificity 1, so return np.inf")


@exercise("7.3")
def holm(answer: Callable[[np.ndarray], np.ndarray]) -> None:
    """``answer(p_values)``: Holm's adjusted p-values, in the order that they came in."""
    for p in (np.array([0.01, 0.02, 0.3]), np.array([0.04, 0.001, 0.03, 0.035]), np.array([0.6, 0.2, 0.9, 0.5])):
        want = _holm(p)
        got = answer(p.copy())
        if got is None or np.shape(got) != p.shape:
            raise AnswerError(f"for {len(p)} p-values the result has shape {np.shape(got)}; give as many")
        got = np.asarray(got, dtype=np.float64)
        if np.allclose(got, want):
            continue
        order = np.argsort(p)
        steps = (len(p) - np.arange(len(p))) * p[order]
        loose = np.empty_like(p)
        loose[order] = np.minimum(1, steps)
        free = np.empty_like(p)
        free[order] = np.maximum.accumulate(steps)
        if np.allclose(got, np.minimum(1, len(p) * p)):
            hint = "this is Bonferroni; the second smallest is multiplied by m - 1, the next by m - 2"
        elif np.allclose(got, want[order]):
            hint = "the values are right and sorted; give them back in the order in which the p-values came"
        elif np.allclose(got, free):
            hint = "a p-value cannot exceed 1"
        elif np.allclose(got, loose) or np.allclose(np.minimum(1, got), loose):
            hint = "an adjusted value is smaller than one whose p-value was smaller; take the running maximum"
        elif np.allclose(got, p):
            hint = "nothing was adjusted"
        else:
            hint = "multiply the smallest by m, the next by m - 1 ..., then take the running maximum and cut at 1"
        raise AnswerError(f"p-values {p.tolist()}: {np.round(want, 3).tolist()}, you give {np.round(got, 3).tolist()}; {hint}")


@exercise("7.4")
def miss_rates(answer: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float], dict[str, float]]) -> None:
    """``answer(y, p, mask, group, threshold)``: group -> share of its known positive films with a score below the threshold."""
    y = np.array([1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1], dtype=float)
    p = np.array([0.9, 0.5, 0.4, 0.6, 0.1, 0.7, 0.2, 0.3, 0.2, 0.1, 0.7, 0.3, 0.1, 0.8, 0.2, 0.4, 0.6, 0.1])
    mask = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0], dtype=bool)
    group = np.array(["F"] * 8 + ["M"] * 7 + ["unknown"] * 3)
    got = answer(y.copy(), p.copy(), mask.copy(), group.copy(), 0.5)
    if not isinstance(got, dict) or {str(k) for k in got} != {"F", "M", "unknown"}:
        raise AnswerError("give a dictionary with one rate for each group: F, M, unknown")
    rates = {str(name): float(value) for name, value in got.items()}

    def agrees(told_no: np.ndarray, of: np.ndarray) -> bool:
        return all(math.isclose(rates[g], told_no[of & (group == g)].mean(), abs_tol=1e-9) for g in ("F", "M"))

    sick, no = mask & (y == 1), p < 0.5
    if not agrees(no, sick):
        if agrees(~no, sick):
            hint = "these are the positives that are found; the miss rate is one minus that"
        elif agrees(no, y == 1):
            hint = "unknown films were counted; take those where the mask is True"
        elif agrees(p <= 0.5, sick):
            hint = "a score that equals the threshold is told positive: it is no miss"
        elif agrees(~no, mask & (y == 0)):
            hint = "these are false alarms among healthy films; a miss is a film with the finding that is told no"
        elif agrees(no & (y == 1), mask):
            hint = "the misses were divided by all films of the group; divide by its positive ones"
        else:
            hint = "of a group's known films with y == 1, which share has p < threshold?"
        raise AnswerError(f"F misses 1 of 4 (0.25) and M 3 of 4 (0.75); you say {rates['F']:.3f} and {rates['M']:.3f}; {hint}")
    if not math.isnan(rates["unknown"]):
        raise AnswerError(f"no film of 'unknown' is known to be positive: its rate is NaN; you say {rates['unknown']:g}, as if "
                          "nobody had been missed")


def _pair(got: object) -> tuple[float, int]:
    if got is None or np.shape(got) != (2,):
        raise AnswerError("give two numbers: the mean AUC, and over how many labels it is")
    return float(got[0]), int(got[1])  # type: ignore[index]


def _lowest(y: np.ndarray, scores: np.ndarray, specificity: float) -> float:
    good = [s for s in np.unique(scores) if (scores[y == 0] < s).mean() >= specificity - 1e-12]
    return float(good[0]) if good else math.inf


def _holm(p: np.ndarray) -> np.ndarray:
    # another way to the same: the i-th smallest has m - i + 1 values that are not below it
    return np.array([min(1.0, max((p >= q).sum() * q for q in p if q <= value)) for value in p])
