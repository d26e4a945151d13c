r"""DeLong's interval of an AUC, and test of a difference, as a check on the bootstrap.

DeLong, DeLong, Clarke-Pearson, Biometrics 1988; the form of Sun and Xu, IEEE Signal Processing Letters 2014. With m positives X
and n negatives Y, and r the midranks among all and among their own class,

    V10_i = (r_all(X_i) - r_X(X_i)) / n,    V01_j = 1 - (r_all(Y_j) - r_Y(Y_j)) / m
    AUC = mean V10,    cov = cov(V10) / m + cov(V01) / n

It takes every film as independent: where patients have several, report the intervals of :mod:`medbridge.metrics.evaluate`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from medbridge.metrics.bootstrap import checked_arrays


def _aucs_and_covariance(y: np.ndarray, runs: Sequence[np.ndarray], mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUCs ``(C, R)`` of R runs and their covariances ``(C, R, R)``; NaN for a label with fewer than two films of a class."""
    aucs, covariances = np.full((y.shape[1], len(runs)), np.nan), np.full((y.shape[1], len(runs), len(runs)), np.nan)
    for c, known in enumerate(mask.T):
        positive, negative = (np.flatnonzero(y[known, c] == value) for value in (1, 0))
        m, n = len(positive), len(negative)
        if min(m, n) >= 2:
            v10, v01 = np.empty((len(runs), m)), np.empty((len(runs), n))
            for r, scores in enumerate(run[known, c] for run in runs):
                ranks = rankdata(scores)
                v10[r] = (ranks[positive] - rankdata(scores[positive])) / n
                v01[r] = 1 - (ranks[negative] - rankdata(scores[negative])) / m
            aucs[c], covariances[c] = v10.mean(axis=1), np.cov(v10) / m + np.cov(v01) / n
    return aucs, covariances


def delong_auc(y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None) -> pd.DataFrame:
    """One row per label: auc, se, lo, hi (95 %, normal, cut to [0, 1]); NaN with fewer than two films of a class."""
    y, scores, mask = checked_arrays(y, scores, mask)
    aucs, covariances = _aucs_and_covariance(y, [scores], mask)
    value, se = aucs[:, 0], np.sqrt(covariances[:, 0, 0])
    reach = norm.isf((1 - 0.95) / 2) * se
    return pd.DataFrame({"auc": value, "se": se, "lo": np.clip(value - reach, 0, 1), "hi": np.clip(value + reach, 0, 1)})


def delong_difference(y: np.ndarray, a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> pd.DataFrame:
    """AUC of scores a minus that of b on the same films, one row per label: diff, se, lo, hi (95 %), p_value (two-sided)."""
    _, b, _ = checked_arrays(y, b, mask, "b")
    y, a, mask = checked_arrays(y, a, mask, "a")
    aucs, cov = _aucs_and_covariance(y, [a, b], mask)
    diff = aucs[:, 0] - aucs[:, 1]
    se = np.sqrt(np.maximum(cov[:, 0, 0] + cov[:, 1, 1] - 2 * cov[:, 0, 1], 0))
    reach = norm.isf((1 - 0.95) / 2) * se
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * norm.sf(np.abs(diff) / se)
    # scores of the same order have no variance of their difference: it is 0 for sure, or for sure not
    p = np.where(se <= 1e-12, np.where(np.abs(diff) < 1e-12, 1.0, 0.0), p)
    return pd.DataFrame({"diff": diff, "se": se, "lo": diff - reach, "hi": diff + reach, "p_value": p})
