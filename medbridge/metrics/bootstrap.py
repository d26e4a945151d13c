"""The bootstrap behind every interval: patients are drawn, and the AUC of each resample is counted, not sorted, anew. [ours]

Arrays: y (n, C) of 0 / 1 (NaN = unknown), scores (n, C), mask (n, C) True where known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medbridge.errors import MedBridgeError

__all__ = ["EvaluationError", "bootstrap_aucs", "bootstrap_means", "checked_arrays", "defined_mean", "group_codes", "percentiles"]

# Resamples weighed at once: 64 x 25,596 counts are 6 MB, small enough to stay near the processor.
_CHUNK = 64


class EvaluationError(MedBridgeError, ValueError):
    """Scores and targets that do not fit together; the message names the argument."""


def checked_arrays(
    y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float64 (n, C) y and scores and bool (n, C) mask, with NaN targets masked."""
    y, scores = np.asarray(y, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    known = None if mask is None else np.asarray(mask, dtype=bool)
    y, scores = (a[:, None] if a.ndim == 1 else a for a in (y, scores))
    known = known[:, None] if known is not None and known.ndim == 1 else known
    if y.ndim != 2 or 0 in y.shape:
        raise EvaluationError(f"y has shape {y.shape}; give (films, labels) with at least one of each")
    for what, array in ((name, scores), ("mask", known)):
        if array is not None and array.shape != y.shape:
            raise EvaluationError(f"{what} has shape {array.shape}, y has {y.shape}; they must be the same")
    known = ~np.isnan(y) if known is None else known & ~np.isnan(y)
    if not np.isin(y[known], (0, 1)).all():
        raise EvaluationError(
            "y holds known values other than 0 and 1; apply an uncertainty policy, or mask them"
        )
    if not np.isfinite(scores[known]).all():
        columns = np.flatnonzero((known & ~np.isfinite(scores)).any(axis=0)).tolist()
        raise EvaluationError(
            f"{name} holds NaN or infinite values for known films, label column(s) {columns}"
        )
    return y, scores, known


def group_codes(groups: Sequence[Any] | None, n: int) -> np.ndarray:
    """The patient of each of n films as a number from 0; every film its own where ``groups`` is None.

    Raises:
        EvaluationError: a wrong count, or a blank patient.
    """
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise EvaluationError(f"groups has {len(groups)} entries, y has {n} films")
    codes = pd.factorize(np.asarray(groups))[0]
    if (codes < 0).any():
        raise EvaluationError("groups holds blanks; name the patient of every film")
    return codes


def _resample_counts(codes: np.ndarray, n_boot: int, seed: int) -> Iterator[np.ndarray]:
    """Times that each film is drawn in each resample, patients whole: chunks of int32 (n, <= _CHUNK)."""
    rng = np.random.default_rng(seed)
    n_groups = int(codes.max()) + 1
    for start in range(0, n_boot, _CHUNK):
        size = min(_CHUNK, n_boot - start)
        drawn = rng.integers(n_groups, size=(size, n_groups))
        flat = drawn + n_groups * np.arange(size)[:, None]
        counts = np.bincount(flat.ravel(), minlength=size * n_groups).reshape(size, n_groups)
        yield np.ascontiguousarray(counts.T, dtype=np.int32)[codes]


def bootstrap_aucs(
    y: np.ndarray, runs: Sequence[np.ndarray], mask: np.ndarray, codes: np.ndarray, n_boot: int, seed: int
) -> np.ndarray:
    """AUCs on common resamples: float64 (runs, n_boot, C).

    A resample is a set of counts w. With the negatives in order of score, the AUC is the weighted share of
    (positive, negative) pairs in the right order, ties counting half:  sum_i w_i (below_i + tied_i / 2) /
    (W_pos W_neg). Sorting happens once a label; each resample then costs one cumulative sum.
    """
    n_labels = y.shape[1]
    plans = []
    for scores in runs:
        for label in range(n_labels):
            positive = np.flatnonzero(mask[:, label] & (y[:, label] == 1))
            negative = np.flatnonzero(mask[:, label] & (y[:, label] == 0))
            negative = negative[np.argsort(scores[negative, label], kind="stable")]
            ordered = scores[negative, label]
            # Row k of the cumulative counts is the weight of the k lowest negatives.
            below = np.searchsorted(ordered, scores[positive, label], side="left")
            upto = np.searchsorted(ordered, scores[positive, label], side="right")
            plans.append((positive, negative, below, upto))
    out = np.full((len(runs) * n_labels, n_boot), np.nan)
    start = 0
    for counts in _resample_counts(codes, n_boot, seed):
        stop = start + counts.shape[1]
        for row, (positive, negative, below, upto) in enumerate(plans):
            if not len(positive) or not len(negative):
                continue
            cumulative = np.zeros((len(negative) + 1, counts.shape[1]), dtype=np.int32)
            np.cumsum(counts[negative], axis=0, out=cumulative[1:])
            weights = counts[positive].astype(np.float64)
            pairs = weights.sum(axis=0) * cumulative[-1]
            won = np.einsum("pb,pb->b", weights, cumulative[below].astype(np.float64) + cumulative[upto]) / 2
            out[row, start:stop] = np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        start = stop
    return out.reshape(len(runs), n_labels, n_boot).transpose(0, 2, 1)


def bootstrap_means(values: np.ndarray, codes: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    """Column means of values ``(n, C)`` over resampled patients (codes of :func:`group_codes`): float64 ``(n_boot, C)``."""
    parts = [(counts.T @ values) / counts.sum(axis=0)[:, None] for counts in _resample_counts(codes, n_boot, seed)]
    return np.concatenate(parts) if parts else np.empty((0, values.shape[1]))


def percentiles(draws: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """(n_boot, C) -> lower and upper (C,), over the draws that are defined; NaN where none is."""
    bounds = np.full((2, draws.shape[1]), np.nan)
    tails = (50 * (1 - level), 50 * (1 + level))
    for column in range(draws.shape[1]):
        values = draws[~np.isnan(draws[:, column]), column]
        if len(values):
            bounds[:, column] = np.percentile(values, tails)
    return bounds[0], bounds[1]


def defined_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is defined; NaN (without numpy's warning) where nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=-1)
    total = np.where(defined, values, 0).sum(axis=-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
