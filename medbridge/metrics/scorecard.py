"""What a report says beside AUC: decisions at a threshold, and how far probabilities can be believed. [ours]

AUC judges the order of films alone. Whoever acts on a score needs a threshold, and whoever reads it as a probability needs
calibration. The threshold of F1 comes from the validation split; that of sensitivity at a fixed specificity is read off the test
films' own ROC curve, as is usual, and so is a point of that curve, not a decision that was made beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medbridge.metrics.bootstrap import defined_mean
from medbridge.metrics.evaluate import Evaluation, brier, ece, json_safe
from medbridge.metrics.thresholds import f1_at, sensitivity_at_specificity

__all__ = ["SPECIFICITY", "Scorecard", "make_scorecard", "scorecard_means"]

SPECIFICITY = 0.9
"""The specificity at which sensitivity is told."""


@dataclass(frozen=True)
class Scorecard:
    """One method on one target.

    Attributes:
        per_label: label, n, positives, ap, sensitivity (at ``specificity``), threshold (highest F1 on validation), f1 (at it).
            NaN where undefined.
        mean: ap, sensitivity, f1: means over the labels that are defined; brier, ece: over all known film-label pairs.
        specificity: the fixed one.
    """

    per_label: pd.DataFrame
    mean: dict[str, float]
    specificity: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: plain numbers and strings, NaN as None."""
        return json_safe({"mean": self.mean, "per_label": self.per_label.to_dict(orient="records"),
                          "specificity": self.specificity})


def make_scorecard(
    evaluation: Evaluation, y: np.ndarray, p: np.ndarray, thresholds: np.ndarray, mask: np.ndarray | None = None,
    specificity: float = SPECIFICITY,
) -> Scorecard:
    """Score one method's probabilities.

    Args:
        evaluation: of the same films and scores; label names, counts and average precision are taken from it.
        y, p, mask: ``(n, C)`` test targets, probabilities and what is known.
        thresholds: ``(C,)``, chosen on other films (:func:`medbridge.metrics.thresholds.f1_thresholds`); NaN where none could be.
        specificity: at which sensitivity is told.

    Raises:
        EvaluationError: arrays that do not fit, or p outside [0, 1].
    """
    table = evaluation.per_label[["label", "n", "positives", "ap"]].copy()
    table["sensitivity"] = sensitivity_at_specificity(y, p, mask, specificity)
    table["threshold"] = thresholds
    table["f1"] = f1_at(y, p, thresholds, mask)
    mean = {name: float(defined_mean(table[name].to_numpy())) for name in ("ap", "sensitivity", "f1")}
    return Scorecard(table, mean | {"brier": brier(y, p, mask), "ece": ece(y, p, mask)}, specificity)


def scorecard_means(cards: Mapping[str, Scorecard]) -> pd.DataFrame:
    """One row a method: ap, sensitivity, f1, brier, ece."""
    return pd.DataFrame({name: card.mean for name, card in cards.items()}).T
