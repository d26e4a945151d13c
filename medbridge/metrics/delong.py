r"""DeLong's interval of an AUC, and test of a difference, as a check on the bootstrap.

It takes every film as independent: where patients have several, report the intervals of :mod:`medbridge.metrics.evaluate`.
"""

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from medbridge.metrics.bootstrap import checked_arrays


def _aucs_and_covariance(y: np.ndarray, runs: list[np.ndarray], mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUCs ``(C, R)`` of R runs and their covariances ``(C, R, R)``; NaN for a label with fewer than two films of a class.

    DeLong, DeLong, Clarke-Pearson, Biometrics 1988; the form of Sun and Xu, IEEE Signal Processing Letters 2014. With m positives
    X and n negatives Y, and r the midranks among all and among their own class:

        V10_i = (r_all(X_i) - r_X(X_i)) / n,    V01_j = 1 - (r_all(Y_j) - r_Y(Y_j)) / m
        AUC = mean V10,    cov = cov(V10) / m + cov(V01) / n
    """
    aucs, covariances = np.full((y.shape[1], len(runs)), np.nan), np.full((y.shape[1], len(runs), len(runs)), np.nan)
    for c, known in enumerate(mask.T):
        scores = np.stack([run[known, c] for run in runs])
        positive, negative = y[known, c] == 1, y[known, c] == 0
        m, n = positive.sum(), negative.sum()
        if min(m, n) >= 2:
            of_x, of_y = (rankdata(scores, axis=1)[:, own] - rankdata(scores[:, own], axis=1) for own in (positive, negative))
            v10, v01 = of_x / n, 1 - of_y / m
            aucs[c], covariances[c] = v10.mean(axis=1), np.cov(v10) / m + np.cov(v01) / n
    return aucs, covariances


def _with_bounds(name: str, value: np.ndarray, se: np.ndarray) -> pd.DataFrame:
    reach = norm.isf((1 - 0.95) / 2) * se
    return pd.DataFrame({name: value, "se": se, "lo": value - reach, "hi": value + reach})


def delong_auc(y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None) -> pd.DataFrame:
    """One row per label: auc, se, lo, hi (95 %, normal, cut to [0, 1]); NaN with fewer than two films of a class."""
    y, scores, mask = checked_arrays(y, scores, mask)
    aucs, cov = _aucs_and_covariance(y, [scores], mask)
    table = _with_bounds("auc", aucs[:, 0], np.sqrt(cov[:, 0, 0]))
    return table.assign(lo=table["lo"].clip(0, 1), hi=table["hi"].clip(0, 1))


def delong_difference(y: np.ndarray, a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> pd.DataFrame:
    """AUC of scores a minus that of b on the same films, one row per label: diff, se, lo, hi (95 %), p_value (two-sided)."""
    _, b, _ = checked_arrays(y, b, mask, "b")
    y, a, mask = checked_arrays(y, a, mask, "a")
    aucs, cov = _aucs_and_covariance(y, [a, b], mask)
    diff, se = aucs[:, 0] - aucs[:, 1], np.sqrt(np.maximum(cov[:, 0, 0] + cov[:, 1, 1] - 2 * cov[:, 0, 1], 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * norm.sf(np.abs(diff) / se)
    # scores of the same order have no variance of their difference: it is 0 for sure, or for sure not
    return _with_bounds("diff", diff, se).assign(p_value=np.where(se <= 1e-12, np.abs(diff) < 1e-12, p))
