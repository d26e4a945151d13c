"""Checks of notebook 07: mean AUC over what is defined, a threshold for a specificity, Holm's correction, miss rates."""

import math

import numpy as np

from medbridge.course.exercises import Answer, close, exercise
from medbridge.metrics.bootstrap import defined_mean
from medbridge.metrics.evaluate import auc
from medbridge.studies.tables import holm


@exercise("7.1")
def macro(answer: Answer) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((40, 4)) < 0.4).astype(float)
    scores, mask = 1.5 * y + rng.normal(size=y.shape), rng.random(y.shape) < 0.7
    y[:, 1] = ~mask[:, 1]  # label 1: one class among its known films, both among all
    (value, count), each = answer.ask(y, scores, mask, shape=(2,)), auc(y, scores, mask)
    want = float(defined_mean(each))
    answer.compare((value, count), (want, 3), "the mean AUC of 4 labels, and how many of them have one",
                   undefined=np.isnan(value), half=close(value, np.nan_to_num(each, nan=0.5).mean()),
                   zero=close(value, np.nan_to_num(each).mean()), unknown=close(value, defined_mean(auc(y, scores))),
                   count=close(value, want))
    answer.judge((np.zeros((5, 2)), rng.random((5, 2)), np.ones((5, 2), dtype=bool)), (math.nan, 0), otherwise="no_label")


def _lowest(y: np.ndarray, scores: np.ndarray, specificity: float) -> float:
    good = [s for s in np.unique(scores) if (scores[y == 0] < s).mean() >= specificity - 1e-12]
    return float(good[0]) if good else math.inf


@exercise("7.2")
def threshold(answer: Answer) -> None:
    ten = np.r_[np.zeros(10), np.ones(5)], np.r_[np.arange(10) / 10, 0.35, 0.55, 0.85, 0.95, 0.97]
    tied = np.r_[np.zeros(8), np.ones(4)], np.array([0.1, 0.2, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.3, 0.5, 0.6, 0.9])
    for (y, scores), wanted in ((ten, 0.8), (ten, 0.9), (ten, 0.55), (tied, 0.5), (tied, 0.7), (ten, 1.0), (tied, 0.0)):
        got, negatives = answer.ask(y, scores, wanted), scores[y == 0]
        reached, enough = (negatives < got).mean(), wanted - 1e-9
        answer.compare(got, _lowest(y, scores, wanted), f"negatives {np.unique(negatives).tolist()}, specificity {wanted:g}",
                       {"reached": reached},
                       between=close(got, np.quantile(negatives, wanted)) and not np.isclose(scores, got).any(),
                       of_positives=_lowest(1 - y, scores, wanted), equal=reached < enough <= (negatives <= got).mean(),
                       too_low=reached < enough)
    answer.judge((np.array([0.0, 0.0, 1.0]), np.array([0.9, 0.2, 0.5]), 1.0), math.inf, otherwise="out_of_reach")


@exercise("7.3")
def holm_adjusted(answer: Answer) -> None:
    for p in ([0.01, 0.02, 0.3], [0.04, 0.001, 0.03, 0.035], [0.6, 0.2, 0.9, 0.5], [0.03, 0.005, 0.9, 0.011, 0.012]):
        p, m = np.array(p), len(p)
        got, want = answer.ask(p, shape=(m,)), holm(p)
        order, rank = np.argsort(p), np.argsort(np.argsort(p))
        steps = (m - rank) * p
        answer.compare(got, want, f"Holm's of the p-values {p.tolist()}", bonferroni=np.minimum(1, m * p), sorted=want[order],
                       above_one=np.maximum.accumulate(steps[order])[rank],
                       no_maximum=close(np.minimum(1, got), np.minimum(1, steps)), rising=np.minimum(1, (rank + 1) * p),
                       benjamini=np.minimum.accumulate((p * m / (rank + 1))[order][::-1])[::-1][rank], unadjusted=p)


@exercise("7.4")
def miss_rates(answer: Answer) -> None:
    y = np.array([1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1], dtype=float)
    p = np.array([0.9, 0.5, 0.4, 0.6, 0.1, 0.7, 0.2, 0.3, 0.2, 0.1, 0.7, 0.3, 0.1, 0.8, 0.2, 0.4, 0.6, 0.1])
    mask = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0], dtype=bool)
    group = np.array(["F"] * 8 + ["M"] * 7 + ["unknown"] * 3)
    got = answer(y, p, mask, group, 0.5)
    got = {str(name): rate for name, rate in got.items()} if isinstance(got, dict) else {}
    answer.refuse(no_groups=got.keys() != {"F", "M", "unknown"})

    def share(of_films: np.ndarray, among: np.ndarray) -> list[float]:
        return [of_films[among & (group == g)].mean() for g in ("F", "M")]

    positive, missed = mask & (y == 1), p < 0.5
    answer.compare([got["F"], got["M"]], share(missed, positive), "F misses 1 of 4 and M 3 of 4", found=share(~missed, positive),
                   unknown=share(missed, y == 1), equal=share(p <= 0.5, positive), false_alarms=share(~missed, mask & (y == 0)),
                   of_all_films=share(missed & (y == 1), mask))
    answer.compare(got["unknown"], np.nan, otherwise="no_positive")
