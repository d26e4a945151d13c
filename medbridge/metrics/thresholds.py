"""From scores to decisions: sensitivity at a fixed specificity, and F1 at a threshold that was chosen on other films. [ours]

A score of at least the threshold counts as positive. Chosen on the test split, a threshold's F1 would be too good. What films of
one class alone cannot show is NaN. Arrays and errors are those of :mod:`medbridge.metrics.evaluate`.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from medbridge.errors import EvaluationError
from medbridge.metrics.bootstrap import by_label, checked_arrays


def sensitivity_at_specificity(
    y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None, specificity: float = 0.9
) -> np.ndarray:
    """Highest sensitivity of each label among the thresholds whose specificity is at least this: float64 ``(C,)``."""
    if not 0 <= specificity <= 1:
        raise EvaluationError(f"specificity={specificity}; give a share between 0 and 1, such as 0.9")

    def highest(truth: np.ndarray, scores: np.ndarray) -> float:
        false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
        # a rate of 0.1 read as 1 - 0.9 is off by a rounding error, not by a film
        return true[false <= 1 - specificity + 1e-12].max()

    return by_label(highest, *checked_arrays(y, scores, mask))


def f1_thresholds(y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Each label's threshold with the highest F1 on these (validation) films; of equal ones the highest: float64 ``(C,)``."""

    def best(truth: np.ndarray, scores: np.ndarray) -> float:
        precision, recall, thresholds = precision_recall_curve(truth, scores)
        total = precision[:-1] + recall[:-1]
        f1 = np.divide(2 * precision[:-1] * recall[:-1], total, out=np.zeros_like(total), where=total > 0)
        return thresholds[np.flatnonzero(f1 >= f1.max() - 1e-12)[-1]]

    return by_label(best, *checked_arrays(y, scores, mask))


def f1_at(y: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """F1 of each label at its own of C thresholds: float64 ``(C,)``; NaN where that is NaN, or no known film is positive."""
    y, scores, mask = checked_arrays(y, scores, mask)
    thresholds = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    if thresholds.shape != (y.shape[1],):
        raise EvaluationError(f"thresholds has shape {thresholds.shape}; give one for each of the {y.shape[1]} labels")
    truth, predicted = mask & (y == 1), mask & (scores >= thresholds)
    with np.errstate(invalid="ignore"):
        f1 = 2 * (truth & predicted).sum(axis=0) / (truth.sum(axis=0) + predicted.sum(axis=0))
    return np.where(truth.any(axis=0) & ~np.isnan(thresholds), f1, np.nan)


def operating_points(y: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, mask: np.ndarray | None = None) -> pd.DataFrame:
    """What becomes of the films of one label, arrays ``(n,)``, at a threshold, or one row for each of several ``(T,)``.

    Columns: threshold; tp, fp, fn, tn (known films); sensitivity, specificity, precision, f1, accuracy: NaN where divided by 0.
    """
    y, scores, mask = checked_arrays(y, scores, mask)
    if y.shape[1] != 1:
        raise EvaluationError(f"y has {y.shape[1]} labels; give the column of one")
    thresholds = np.atleast_1d(thresholds)
    truth, predicted = y[mask] == 1, scores[mask] >= thresholds.astype(np.float64)[:, None]
    cells = {"tp": predicted & truth, "fp": predicted & ~truth, "fn": ~predicted & truth, "tn": ~predicted & ~truth}
    table = pd.DataFrame({"threshold": thresholds} | {name: cell.sum(axis=1) for name, cell in cells.items()})
    tp, fp, fn, tn = (table[name].to_numpy(dtype=np.float64) for name in cells)
    with np.errstate(invalid="ignore"):
        return table.assign(sensitivity=tp / (tp + fn), specificity=tn / (tn + fp), precision=tp / (tp + fp),
                            f1=2 * tp / (2 * tp + fp + fn), accuracy=(tp + tn) / (tp + fp + fn + tn))
