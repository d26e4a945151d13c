"""Do probabilities mean what they say? Brier score, ECE, the table behind a reliability plot, and a temperature.

Of the films that get a probability of 0.3, three in ten should have the finding (DeGroot and Fienberg, The Statistician 1983).
All known film-label pairs count alike; NaN where nothing is known. Arrays and errors: :mod:`medbridge.metrics.evaluate`.
"""

import math

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from medbridge.errors import EvaluationError
from medbridge.metrics.bootstrap import checked_arrays


def _known_probabilities(y: np.ndarray, p: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    y, p, known = checked_arrays(y, p, mask, "p")
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise EvaluationError("p holds values outside [0, 1]; give probabilities, not logits")
    return y[known], p[known]


def _binned(y: np.ndarray, p: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per bin of equal width: number of pairs, sum of p, number of positives."""
    if bins < 1:
        raise EvaluationError(f"bins={bins}; give at least one")
    which = np.minimum((p * bins).astype(int), bins - 1)
    return tuple(np.bincount(which, weights=weights, minlength=bins) for weights in (None, p, y))


def brier(y: np.ndarray, p: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean squared error of probabilities p."""
    y, p = _known_probabilities(y, p, mask)
    return float(np.mean((p - y) ** 2)) if len(p) else math.nan


def ece(y: np.ndarray, p: np.ndarray, mask: np.ndarray | None = None, bins: int = 15) -> float:
    """Expected calibration error of probabilities p: bins of equal width, weighted by count."""
    y, p = _known_probabilities(y, p, mask)
    _, predicted, positive = _binned(y, p, bins)
    return float(np.abs(predicted - positive).sum() / len(p)) if len(p) else math.nan


def reliability(y: np.ndarray, p: np.ndarray, mask: np.ndarray | None = None, bins: int = 15) -> pd.DataFrame:
    """One row per bin of :func:`ece` that holds any known film-label pair: lo, hi (edges), n, predicted (mean p), observed (share
    of positives), observed_lo, observed_hi (Wilson's 95 % interval, which takes every pair as independent)."""
    y, p = _known_probabilities(y, p, mask)
    n, total, positive = _binned(y, p, bins)
    held, z = np.flatnonzero(n), norm.isf((1 - 0.95) / 2)
    count, predicted, observed = n[held], total[held] / n[held], positive[held] / n[held]
    centre = (observed + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * np.sqrt(observed * (1 - observed) / count + z**2 / (4 * count**2))
    # at shares of 0 and 1 a rounding error would put the bound past the share itself
    low, high = np.minimum(centre - reach, observed), np.maximum(centre + reach, observed)
    return pd.DataFrame({"lo": held / bins, "hi": (held + 1) / bins, "n": count, "predicted": predicted, "observed": observed,
                         "observed_lo": low, "observed_hi": high})


def fit_temperature(y: np.ndarray, logits: np.ndarray, mask: np.ndarray | None = None) -> float:
    """The T in 0.01 to 100 for which sigmoid(logits / T) has the least cross-entropy on validation films; one for all labels.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. T above 1 makes probabilities less sure.
    """
    y, logits, mask = checked_arrays(y, logits, mask, "logits")
    y, logits = y[mask], logits[mask]
    if len(np.unique(y)) < 2:
        raise EvaluationError("a temperature needs known films with and without a finding; give more validation films")

    def loss(log_t: float) -> float:
        z = logits / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, z) - y * z))

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-8}).x))
