r"""DeLong's interval of an AUC, and test of a difference, as a check on the bootstrap.

DeLong, DeLong, Clarke-Pearson, Biometrics 1988; the midrank form of Sun and Xu, IEEE Signal Processing Letters 2014. With m
positives X and n negatives Y, and r the midranks among all and among their own class,

    V10_i = (r_all(X_i) - r_X(X_i)) / n,    V01_j = 1 - (r_all(Y_j) - r_Y(Y_j)) / m
    AUC = mean V10,    cov = cov(V10) / m + cov(V01) / n

It takes every film as independent. Where patients have several films, its intervals are too narrow: those of
:mod:`medbridge.metrics.evaluate`, which draws patients, are the ones to report.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from medbridge.metrics.bootstrap import EvaluationError, checked_arrays

__all__ = ["delong_auc", "delong_covariance", "delong_difference"]


def delong_covariance(y: np.ndarray, runs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """AUCs ``(R,)`` and their covariance ``(R, R)`` for one label: y ``(n,)`` of 0 / 1, each of R scores ``(n,)``.

    Raises:
        EvaluationError: fewer than two films of a class.
    """
    positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        raise EvaluationError(f"DeLong's variance needs two films of each class; there are {m} positive and {n} negative ones")
    v10, v01 = np.empty((len(runs), m)), np.empty((len(runs), n))
    for r, scores in enumerate(runs):
        every = rankdata(scores)
        v10[r] = (every[positive] - rankdata(scores[positive])) / n
        v01[r] = 1 - (every[negative] - rankdata(scores[negative])) / m
    return v10.mean(axis=1), np.atleast_2d(np.cov(v10)) / m + np.atleast_2d(np.cov(v01)) / n


def delong_auc(
    y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None, labels: Sequence[str] | None = None, level: float = 0.95
) -> pd.DataFrame:
    """One row a label: label, auc, se, lo, hi (normal interval, cut to [0, 1]); NaN with fewer than two films of a class.

    Raises:
        EvaluationError: arrays that do not fit.
    """
    y, scores, mask = checked_arrays(y, scores, mask)
    rows = []
    for c in range(y.shape[1]):
        found = _one(y[mask[:, c], c], [scores[mask[:, c], c]])
        value, se = (np.nan, np.nan) if found is None else (found[0][0], np.sqrt(found[1][0, 0]))
        reach = norm.isf((1 - level) / 2) * se
        rows.append({"label": _label(labels, c), "auc": value, "se": se, "lo": np.clip(value - reach, 0, 1),
                     "hi": np.clip(value + reach, 0, 1)})
    return pd.DataFrame(rows)


def delong_difference(
    y: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray, mask: np.ndarray | None = None,
    labels: Sequence[str] | None = None, level: float = 0.95,
) -> pd.DataFrame:
    """AUC of A minus that of B on the same films, one row a label: label, diff, se, lo, hi, p_value (two-sided).

    Raises:
        EvaluationError: arrays that do not fit; the message names the scores.
    """
    targets, known = y, mask
    y, a, mask = checked_arrays(targets, scores_a, known, "scores_a")
    _, b, _ = checked_arrays(targets, scores_b, known, "scores_b")
    rows = []
    for c in range(y.shape[1]):
        found = _one(y[mask[:, c], c], [a[mask[:, c], c], b[mask[:, c], c]])
        diff, se, p = np.nan, np.nan, np.nan
        if found is not None:
            (first, second), cov = found
            diff, se = first - second, np.sqrt(max(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1], 0))
            p = 2 * norm.sf(abs(diff) / se) if se > 1e-12 else float(abs(diff) < 1e-12)
        reach = norm.isf((1 - level) / 2) * se
        rows.append({"label": _label(labels, c), "diff": diff, "se": se, "lo": diff - reach, "hi": diff + reach, "p_value": p})
    return pd.DataFrame(rows)


def _one(y: np.ndarray, runs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    return delong_covariance(y, runs) if min((y == 1).sum(), (y == 0).sum()) >= 2 else None


def _label(labels: Sequence[str] | None, c: int) -> str:
    return f"label {c}" if labels is None else labels[c]
