"""What a report says beside AUC: decisions at a threshold, and how far probabilities can be believed. [ours]

The threshold of F1 comes from the validation split. Sensitivity at a fixed specificity is read off the test films' own ROC
curve, as is usual: it is a point of that curve, not a decision that was made beforehand.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medbridge.metrics.bootstrap import defined_mean
from medbridge.metrics.calibration import brier, ece
from medbridge.metrics.evaluate import Evaluation
from medbridge.metrics.thresholds import f1_at, sensitivity_at_specificity

SPECIFICITY = 0.9  # at which a scorecard gives the sensitivity


@dataclass(frozen=True)
class Scorecard:
    """One method on one target; NaN where undefined."""

    mean: dict[str, float]  # ap, sensitivity, f1: means over the labels that are defined; brier, ece: over all known pairs
    per_label: pd.DataFrame  # label, n, positives, ap, sensitivity, threshold (highest F1 on validation), f1 (at it)
    specificity: float = SPECIFICITY


def make_scorecard(
    evaluation: Evaluation, y: np.ndarray, p: np.ndarray, thresholds: np.ndarray, mask: np.ndarray | None = None
) -> Scorecard:
    """Score one method's probabilities p ``(n, C)`` of test films, of which ``evaluation`` has names, counts and AP.

    The thresholds ``(C,)`` were chosen on other films (:func:`medbridge.metrics.thresholds.f1_thresholds`); NaN where none was.
    """
    table = evaluation.per_label[["label", "n", "positives", "ap"]].assign(
        sensitivity=sensitivity_at_specificity(y, p, mask, SPECIFICITY), threshold=thresholds, f1=f1_at(y, p, thresholds, mask))
    mean = {name: float(defined_mean(table[name].to_numpy())) for name in ("ap", "sensitivity", "f1")}
    return Scorecard(mean | {"brier": brier(y, p, mask), "ece": ece(y, p, mask)}, table)
