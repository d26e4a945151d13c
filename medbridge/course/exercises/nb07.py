"""Checks of notebook 07: mean AUC over what is defined, a threshold for a specificity, Holm's correction, miss rates. [ours]"""

import math

import numpy as np

from medbridge.course.exercises.register import Answer, ask, close, compare, exercise, judge, refuse, shaped
from medbridge.metrics.bootstrap import defined_mean
from medbridge.metrics.evaluate import auc
from medbridge.studies.tables import holm


@exercise("7.1")
def macro(answer: Answer) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((40, 4)) < 0.4).astype(float)
    scores, mask = 1.5 * y + rng.normal(size=y.shape), rng.random(y.shape) < 0.7
    y[:, 1] = ~mask[:, 1]  # label 1: one class among its known films, both among all
    give, each = "two numbers: the mean AUC, and over how many labels it is", auc(y, scores, mask)
    (value, count), want = ask(answer, y, scores, mask, shape=(2,), give=give), float(defined_mean(each))
    compare((value, count), (want, 3), [
        (np.isnan(value), "one undefined label makes the whole mean NaN; leave it out of the mean"),
        (close(value, np.nan_to_num(each, nan=0.5).mean()), "0.5 was put in for a label without an AUC; leave it out"),
        (close(value, np.nan_to_num(each).mean()), "0 was put in for a label without an AUC; it is no result, leave it out"),
        (close(value, defined_mean(auc(y, scores))), "unknown films were counted; take those where the mask is True"),
        (close(value, want), "the mean is right; the second number is how many labels are in it"),
    ], "take the AUC of each label over its known films, then the mean over the labels with both classes",
        "the mean AUC of 4 labels, and how many of them have one")
    judge(answer, (np.zeros((5, 2)), rng.random((5, 2)), np.ones((5, 2), dtype=bool)), (math.nan, 0), [],
          "where no label has both classes return NaN and 0", give=give)


def _lowest(y: np.ndarray, scores: np.ndarray, specificity: float) -> float:
    good = [s for s in np.unique(scores) if (scores[y == 0] < s).mean() >= specificity - 1e-12]
    return float(good[0]) if good else math.inf


@exercise("7.2")
def threshold(answer: Answer) -> None:
    ten = np.r_[np.zeros(10), np.ones(5)], np.r_[np.arange(10) / 10, 0.35, 0.55, 0.85, 0.95, 0.97]
    tied = np.r_[np.zeros(8), np.ones(4)], np.array([0.1, 0.2, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.3, 0.5, 0.6, 0.9])
    for (y, scores), wanted in ((ten, 0.8), (ten, 0.9), (ten, 0.55), (tied, 0.5), (tied, 0.7), (ten, 1.0), (tied, 0.0)):
        got, negatives = ask(answer, y, scores, wanted, give="one number: the threshold"), scores[y == 0]
        reached, low = (negatives < got).mean(), (negatives < got).mean() < wanted - 1e-9
        compare(got, _lowest(y, scores, wanted), [
            (close(got, np.quantile(negatives, wanted)) and not np.isclose(scores, got).any(),
             "this lies between two observed scores; take an observed one"),
            (_lowest(1 - y, scores, wanted), "specificity is about the films without the finding (y == 0)"),
            (low and (negatives <= got).mean() >= wanted - 1e-9,
             "a score that equals the threshold is predicted positive: such a negative is a false alarm"),
            (low, f"its specificity is only {reached:.2f}"),
        ], f"its specificity is {reached:.2f}, and a lower threshold is good enough, with more true positives",
            f"negatives {np.unique(negatives).tolist()}, specificity {wanted:g}")
    judge(answer, (np.array([0.0, 0.0, 1.0]), np.array([0.9, 0.2, 0.5]), 1.0), math.inf, [],
          "a negative has the highest score of all: no observed score reaches specificity 1, so return np.inf")


@exercise("7.3")
def holm_adjusted(answer: Answer) -> None:
    for p in ([0.01, 0.02, 0.3], [0.04, 0.001, 0.03, 0.035], [0.6, 0.2, 0.9, 0.5], [0.03, 0.005, 0.9, 0.011, 0.012]):
        p, m = np.array(p), len(p)
        got, want = ask(answer, p, shape=(m,), give=f"as many adjusted values as p-values: {m}"), holm(p)
        order, rank = np.argsort(p), np.argsort(np.argsort(p))
        steps, rising = (m - rank) * p, (rank + 1) * p
        compare(got, want, [
            (np.minimum(1, m * p), "this is Bonferroni; the second smallest is multiplied by m - 1, the next by m - 2"),
            (want[order], "the values are right and sorted; give them back in the order in which the p-values came"),
            (np.maximum.accumulate(steps[order])[rank], "a p-value cannot exceed 1"),
            (close(np.minimum(1, got), np.minimum(1, steps)),
             "an adjusted value is smaller than one whose p-value was smaller; take the running maximum in sorted order"),
            (np.minimum(1, rising), "the smallest p-value is multiplied by m, not by 1: by how many hypotheses are still open"),
            (np.minimum.accumulate((p * m / (rank + 1))[order][::-1])[::-1][rank],
             "this is Benjamini and Hochberg's, which bounds the share of false claims, not the chance of any"),
            (p, "nothing was adjusted"),
        ], "multiply the smallest by m, the next by m - 1 ..., then take the running maximum and cut at 1",
            f"Holm's of the p-values {p.tolist()}")


@exercise("7.4")
def miss_rates(answer: Answer) -> None:
    y = np.array([1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1], dtype=float)
    p = np.array([0.9, 0.5, 0.4, 0.6, 0.1, 0.7, 0.2, 0.3, 0.2, 0.1, 0.7, 0.3, 0.1, 0.8, 0.2, 0.4, 0.6, 0.1])
    mask = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0], dtype=bool)
    group = np.array(["F"] * 8 + ["M"] * 7 + ["unknown"] * 3)
    got = answer(y.copy(), p.copy(), mask.copy(), group.copy(), 0.5)
    got = {str(k): v for k, v in got.items()} if isinstance(got, dict) else {}
    refuse((got.keys() != {"F", "M", "unknown"}, "give a dictionary with one rate for each group: F, M, unknown"))
    *rates, unknown = shaped([got[g] for g in ("F", "M", "unknown")], (3,), "three rates")

    def share(of_films: np.ndarray, among: np.ndarray) -> list[float]:
        return [of_films[among & (group == g)].mean() for g in ("F", "M")]

    positive, missed = mask & (y == 1), p < 0.5
    compare(rates, share(missed, positive), [
        (share(~missed, positive), "these are the positives that are found; the miss rate is one minus that"),
        (share(missed, y == 1), "unknown films were counted; take those where the mask is True"),
        (share(p <= 0.5, positive), "a score that equals the threshold is predicted positive: it is no miss"),
        (share(~missed, mask & (y == 0)), "these are false alarms; a miss is a film with the finding that is predicted negative"),
        (share(missed & (y == 1), mask), "the misses were divided by all films of the group; divide by its positive ones"),
    ], "of a group's known films with y == 1, which share has p < threshold?", "F misses 1 of 4 and M 3 of 4")
    compare(unknown, np.nan, [], "no film of 'unknown' is known to be positive; a number looks as if nobody had been missed")
