"""From scores to decisions: sensitivity at a fixed specificity, F1 at a threshold, and what a report says beside AUC.

A score of at least the threshold counts as positive. Thresholds are chosen on validation films: on the test split, their F1 would
be too good. NaN: films of one class alone cannot show it. Arrays and errors are those of :mod:`medbridge.metrics.evaluate`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from medbridge.errors import EvaluationError
from medbridge.metrics.bootstrap import by_label, checked_arrays, defined_mean
from medbridge.metrics.calibration import brier, ece
from medbridge.metrics.evaluate import Evaluation


def sensitivity_at_specificity(
    y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None, specificity: float = 0.9
) -> np.ndarray:
    """Highest sensitivity of each label where the specificity is at least this: float64 ``(C,)``.

    It is a point of these films' own ROC curve, as is usual, not a decision that was made beforehand.
    """
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


@dataclass(frozen=True)
class Scorecard:
    """One method on one target; NaN where undefined."""

    mean: dict[str, float]  # ap, sensitivity, f1: means over the labels that are defined; brier, ece: over all known pairs
    per_label: pd.DataFrame  # label, n, positives, ap, sensitivity, threshold (highest F1 on validation), f1 (at it)
    specificity: float = 0.9  # at which the sensitivity is given


def make_scorecard(
    evaluation: Evaluation, y: np.ndarray, p: np.ndarray, thresholds: np.ndarray, mask: np.ndarray | None = None
) -> Scorecard:
    """Score probabilities p ``(n, C)`` of test films, evaluated before, at thresholds ``(C,)`` of :func:`f1_thresholds`."""
    table = evaluation.per_label[["label", "n", "positives", "ap"]].assign(
        sensitivity=sensitivity_at_specificity(y, p, mask), threshold=thresholds, f1=f1_at(y, p, thresholds, mask))
    mean = {name: float(defined_mean(table[name].to_numpy())) for name in ("ap", "sensitivity", "f1")}
    return Scorecard(mean | {"brier": brier(y, p, mask), "ece": ece(y, p, mask)}, table)
