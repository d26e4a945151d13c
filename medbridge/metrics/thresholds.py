"""From scores to decisions: sensitivity at a fixed specificity, and F1 at a threshold that was chosen on other films. [ours]

A score of at least the threshold counts as positive. A threshold is chosen on the validation split and applied to the test
split: chosen on the test split, its F1 would be too good. What one class alone cannot tell is NaN.

Arrays as in :mod:`medbridge.metrics.evaluate`: y ``(n, C)`` of 0 / 1 (NaN = unknown), scores and mask ``(n, C)``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, precision_recall_curve, roc_curve

from medbridge.metrics.bootstrap import EvaluationError, checked_arrays

__all__ = ["f1_at", "f1_thresholds", "operating_points", "sensitivity_at_specificity"]


def sensitivity_at_specificity(
    y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None, specificity: float = 0.9
) -> np.ndarray:
    """Highest sensitivity of each label among the thresholds whose specificity is at least ``specificity``: float64 (C,).

    Raises:
        EvaluationError: arrays that do not fit, or a specificity outside [0, 1].
    """
    if not 0 <= specificity <= 1:
        raise EvaluationError(f"specificity={specificity}; give a share between 0 and 1, such as 0.9")
    y, scores, mask = checked_arrays(y, scores, mask)
    out = np.full(y.shape[1], np.nan)
    for c in range(y.shape[1]):
        known = mask[:, c]
        if len(np.unique(y[known, c])) == 2:
            false, true, _ = roc_curve(y[known, c], scores[known, c], drop_intermediate=False)
            # a rate of 0.1 read as 1 - 0.9 is off by a rounding error, not by a film
            out[c] = true[false <= 1 - specificity + 1e-12].max()
    return out


def f1_thresholds(y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """The threshold of each label with the highest F1 on these (validation) films; of equal ones the highest: float64 (C,)."""
    y, scores, mask = checked_arrays(y, scores, mask)
    out = np.full(y.shape[1], np.nan)
    for c in range(y.shape[1]):
        known = mask[:, c]
        if len(np.unique(y[known, c])) == 2:
            precision, recall, thresholds = precision_recall_curve(y[known, c], scores[known, c])
            total = precision[:-1] + recall[:-1]
            f1 = np.divide(2 * precision[:-1] * recall[:-1], total, out=np.zeros_like(total), where=total > 0)
            out[c] = thresholds[np.flatnonzero(f1 >= f1.max() - 1e-12)[-1]]
    return out


def f1_at(y: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """F1 of each label at its threshold: float64 (C,); NaN where the threshold is NaN, or no known film is positive.

    Raises:
        EvaluationError: arrays that do not fit, or not one threshold a label.
    """
    y, scores, mask = checked_arrays(y, scores, mask)
    thresholds = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    if thresholds.shape != (y.shape[1],):
        raise EvaluationError(f"thresholds has shape {thresholds.shape}; give one for each of the {y.shape[1]} labels")
    out = np.full(y.shape[1], np.nan)
    for c, threshold in enumerate(thresholds):
        known = mask[:, c]
        if not np.isnan(threshold) and (y[known, c] == 1).any():
            out[c] = f1_score(y[known, c], scores[known, c] >= threshold, zero_division=0)
    return out


def operating_points(
    y: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, mask: np.ndarray | None = None
) -> pd.DataFrame:
    """What becomes of one label's films at each threshold.

    Args:
        y, scores, mask: ``(n,)``: one label. thresholds: a number, or several ``(T,)``.

    Returns:
        One row a threshold: threshold, tp, fp, fn, tn (known films), sensitivity tp / (tp + fn), specificity tn / (tn + fp),
        precision tp / (tp + fp), f1 2 tp / (2 tp + fp + fn), accuracy; NaN where the divisor is 0.

    Raises:
        EvaluationError: arrays that do not fit, or more than one label.
    """
    y, scores, mask = checked_arrays(y, scores, mask)
    if y.shape[1] != 1:
        raise EvaluationError(f"y has {y.shape[1]} labels; give the column of one")
    truth, told = y[mask] == 1, scores[mask][None, :] >= np.atleast_1d(np.asarray(thresholds, dtype=np.float64))[:, None]
    counts = {"tp": told & truth, "fp": told & ~truth, "fn": ~told & truth, "tn": ~told & ~truth}
    table = pd.DataFrame({"threshold": np.atleast_1d(thresholds)} | {name: hit.sum(axis=1) for name, hit in counts.items()})
    tp, fp, fn, tn = (table[name].to_numpy(dtype=np.float64) for name in counts)
    with np.errstate(invalid="ignore"):
        return table.assign(
            sensitivity=tp / (tp + fn), specificity=tn / (tn + fp), precision=tp / (tp + fp), f1=2 * tp / (2 * tp + fp + fn),
            accuracy=(tp + tn) / (tp + fp + fn + tn))
