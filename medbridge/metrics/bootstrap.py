"""The bootstrap behind every interval: patients are drawn, and the AUC of each resample is counted, not sorted, anew.

Arrays are those of :mod:`medbridge.metrics.evaluate`: y, scores and mask, each ``(n, C)``.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from medbridge.errors import EvaluationError

_CHUNK = 64  # resamples weighed at once: 64 x 25,596 counts are 6 MB, small enough to stay near the processor


def checked_arrays(
    y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float64 ``(n, C)`` y and scores and bool mask, with NaN targets masked; ``(n,)`` stands for one label."""
    y, scores = np.asarray(y, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    known = np.ones(y.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    y, scores, known = (a[:, None] if a.ndim == 1 else a for a in (y, scores, known))
    if y.ndim != 2 or 0 in y.shape:
        raise EvaluationError(f"y has shape {y.shape}; give (films, labels) with at least one of each")
    for what, array in ((name, scores), ("mask", known)):
        if array.shape != y.shape:
            raise EvaluationError(f"{what} has shape {array.shape}, y has {y.shape}; they must be the same")
    known = known & ~np.isnan(y)
    if not np.isin(y[known], (0, 1)).all():
        raise EvaluationError("y holds known values other than 0 and 1; apply an uncertainty policy, or mask them")
    if not np.isfinite(scores[known]).all():
        columns = np.flatnonzero((known & ~np.isfinite(scores)).any(axis=0)).tolist()
        raise EvaluationError(f"{name} holds NaN or infinite values for known films, label column(s) {columns}")
    return y, scores, known


def by_label(metric: Callable[..., float], y: np.ndarray, scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``metric(truth, scores)`` of each label over its known films: float64 ``(C,)``, NaN where these are of one class alone."""
    values = np.full(y.shape[1], np.nan)
    for c, known in enumerate(mask.T):
        if len(np.unique(y[known, c])) == 2:
            values[c] = metric(y[known, c], scores[known, c])
    return values


def group_codes(groups: Sequence[Any] | None, n: int) -> np.ndarray:
    """The patient of each of n films as a number from 0; every film its own where ``groups`` is None."""
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise EvaluationError(f"groups has {len(groups)} entries, y has {n} films")
    codes = pd.factorize(np.asarray(groups))[0]
    if (codes < 0).any():
        raise EvaluationError("groups holds blanks; name the patient of every film")
    return codes


def plan(
    y: np.ndarray, groups: Sequence[Any] | None, labels: Sequence[str] | None, n_boot: int, seed: int, least: int = 0
) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    """The labels' names, the patients' codes, and what a result says of how it was made."""
    n, count = y.shape
    names = [f"label {i}" for i in range(count)] if labels is None else list(labels)
    if len(names) != count:
        raise EvaluationError(f"labels names {len(names)} labels, y has {count} columns")
    codes = group_codes(groups, n)
    if n_boot < least:
        raise EvaluationError(f"n_boot={n_boot}; give at least {least}")
    return names, codes, {"n": n, "groups": int(codes.max()) + 1, "n_boot": n_boot, "seed": seed, "level": 0.95}


def _resample_counts(codes: np.ndarray, n_boot: int, seed: int) -> Iterator[np.ndarray]:
    """Times that each film is drawn in each resample, patients whole: chunks of int32 (n, <= _CHUNK)."""
    rng, n_groups = np.random.default_rng(seed), int(codes.max()) + 1
    for start in range(0, n_boot, _CHUNK):
        drawn = rng.integers(n_groups, size=(min(_CHUNK, n_boot - start), n_groups))
        yield np.stack([np.bincount(patients, minlength=n_groups).astype(np.int32) for patients in drawn], axis=1)[codes]


def bootstrap_aucs(
    y: np.ndarray, runs: Sequence[np.ndarray], mask: np.ndarray, codes: np.ndarray, n_boot: int, seed: int
) -> np.ndarray:
    """AUCs on common resamples: float64 ``(runs, n_boot, C)``.

    The AUC is the share of (positive, negative) pairs in the right order, ties counting half, by the counts w of a resample:
    sum_i w_i (below_i + tied_i / 2) / (W_pos W_neg). Films are sorted once per label; a resample costs one cumulative sum.
    """
    n_labels, plans = y.shape[1], []
    for scores, label in product(runs, range(n_labels)):
        positive, negative = (np.flatnonzero(mask[:, label] & (y[:, label] == value)) for value in (1, 0))
        negative = negative[np.argsort(scores[negative, label], kind="stable")]
        # row k of the cumulative counts is the weight of the k lowest negatives
        below, upto = (np.searchsorted(scores[negative, label], scores[positive, label], side) for side in ("left", "right"))
        plans.append((positive, negative, below, upto))
    out, start = np.full((len(plans), n_boot), np.nan), 0
    for counts in _resample_counts(codes, n_boot, seed):
        stop = start + counts.shape[1]
        for row, (positive, negative, below, upto) in enumerate(plans):
            cumulative = np.zeros((len(negative) + 1, counts.shape[1]), dtype=np.int32)
            np.cumsum(counts[negative], axis=0, out=cumulative[1:])
            weights = counts[positive].astype(np.float64)
            pairs = weights.sum(axis=0) * cumulative[-1]
            won = np.einsum("pb,pb->b", weights, cumulative[below].astype(np.float64) + cumulative[upto]) / 2
            np.divide(won, pairs, out=out[row, start:stop], where=pairs > 0)
        start = stop
    return out.reshape(len(runs), n_labels, n_boot).transpose(0, 2, 1)


def bootstrap_sums(values: np.ndarray, codes: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    """Column sums of values ``(n, C)`` over resampled patients (codes of :func:`group_codes`): ``(n_boot, C)``."""
    return np.concatenate([values[:0], *(counts.T @ values for counts in _resample_counts(codes, n_boot, seed))])


def bootstrap_means(values: np.ndarray, codes: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    """The same for column means: float64 ``(n_boot, C)``."""
    return bootstrap_sums(values, codes, n_boot, seed) / bootstrap_sums(np.ones((len(values), 1)), codes, n_boot, seed)


def label_means(
    films: pd.DataFrame, labels: Sequence[str], columns: Sequence[str], n_boot: int, seed: int, every: str | None = None
) -> pd.DataFrame:
    """Means of scores that have one row per film and label: one row per label that occurs, and ``every`` for all of them.

    Columns: label, films, patients, the scores, and NAME_lo, NAME_hi (95 %, over resampled patients) of those named.
    """
    rows = []
    for label in (*labels, *([every] if every else [])):
        part = films if label == every else films[films["label"] == label]
        if len(part):
            values = np.stack([part[name] for name in columns], axis=1)
            bounds = percentiles(bootstrap_means(values, group_codes(part["patient"], len(part)), n_boot, seed))
            row = {"label": label, "films": len(part), "patients": part["patient"].nunique()}
            row |= {name: part[name].mean() for name in part.select_dtypes("number")}
            rows.append(row | {f"{name}_{end}": bound[k] for end, bound in zip(("lo", "hi"), bounds, strict=True)
                               for k, name in enumerate(columns)})
    return pd.DataFrame(rows)


def percentiles(draws: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """``(n_boot, C)`` or ``(n_boot,)`` -> lower and upper ``(C,)``, over the draws that are defined; NaN where none is."""
    lower, upper = pd.DataFrame(draws).quantile([(1 - level) / 2, (1 + level) / 2]).to_numpy()
    return lower, upper


def label_and_mean(draws: np.ndarray, y: np.ndarray, mask: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resampled AUCs ``(n_boot, C)`` -> those of each label, and their mean ``(n_boot,)``.

    A label whose positives (or negatives) are all of one patient is NaN: whoever is resampled, it is the same patient, and the
    interval would be a point. The mean is NaN where that holds for every label.
    """
    thin = np.array([min(len(np.unique(codes[known & (y[:, c] == value)])) for value in (0, 1)) < 2
                     for c, known in enumerate(mask.T)])
    return np.where(thin, np.nan, draws), np.where(thin.all(), np.nan, defined_mean(draws))


def defined_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is defined; NaN (without numpy's warning) where nothing is."""
    count = np.sum(~np.isnan(values), axis=-1)
    return np.nansum(values, axis=-1) / np.where(count > 0, count, np.nan)
