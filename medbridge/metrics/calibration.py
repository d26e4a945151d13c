"""Do probabilities mean what they say? The table behind a reliability plot, and one number that mends a part of it. [ours]

Of the films that were told 0.3, three in ten should have the finding (DeGroot and Fienberg, The Statistician 1983).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from medbridge.metrics.bootstrap import EvaluationError, checked_arrays

__all__ = ["fit_temperature", "reliability"]


def reliability(
    y: np.ndarray, p: np.ndarray, mask: np.ndarray | None = None, bins: int = 15, level: float = 0.95
) -> pd.DataFrame:
    """One row a bin of equal width that holds any known film-label pair; the bins are those of :func:`.evaluate.ece`.

    Args:
        y, p, mask: ``(n, C)`` or ``(n,)``; p probabilities. level: of the interval.

    Returns:
        lo, hi (edges), n, predicted (mean p), observed (share of positives), observed_lo, observed_hi (Wilson's interval, which
        takes every pair as independent).

    Raises:
        EvaluationError: arrays that do not fit, p outside [0, 1], or fewer than one bin.
    """
    y, p, known = checked_arrays(y, p, mask, "p")
    y, p = y[known], p[known]
    if ((p < 0) | (p > 1)).any():
        raise EvaluationError("p holds values outside [0, 1]; give probabilities, not logits")
    if bins < 1:
        raise EvaluationError(f"bins={bins}; give at least one")
    which = np.minimum((p * bins).astype(int), bins - 1)
    n = np.bincount(which, minlength=bins)
    held = np.flatnonzero(n)
    count = n[held]
    observed = np.bincount(which, weights=y, minlength=bins)[held] / count
    predicted = np.bincount(which, weights=p, minlength=bins)[held] / count
    z = norm.isf((1 - level) / 2)
    centre = (observed + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * np.sqrt(observed * (1 - observed) / count + z**2 / (4 * count**2))
    # at shares of 0 and 1 a rounding error would put the bound past the share itself
    low, high = np.minimum(centre - reach, observed), np.maximum(centre + reach, observed)
    return pd.DataFrame({"lo": held / bins, "hi": (held + 1) / bins, "n": count, "predicted": predicted, "observed": observed,
                         "observed_lo": low, "observed_hi": high})


def fit_temperature(y: np.ndarray, logits: np.ndarray, mask: np.ndarray | None = None) -> float:
    """The temperature T for which sigmoid(logits / T) has the least cross-entropy on these (validation) films.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2, with a sigmoid for each label and one T for
    all of them. T above 1 makes probabilities less sure. The order of films, and so every AUC, stays.

    Args:
        y, logits, mask: ``(n, C)`` or ``(n,)``.

    Returns:
        T, between 0.01 and 100.

    Raises:
        EvaluationError: arrays that do not fit, or known films of one class alone, which no temperature suits.
    """
    y, logits, mask = checked_arrays(y, logits, mask, "logits")
    y, logits = y[mask], logits[mask]
    if len(np.unique(y)) < 2:
        raise EvaluationError("a temperature needs known films with and without a finding; give more validation films")

    def loss(log_t: float) -> float:
        z = logits / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, z) - y * z))

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-8}).x))
