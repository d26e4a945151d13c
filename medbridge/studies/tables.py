"""Scores -> rows of tables: AUC over seeds with intervals over patients, and paired differences.

All methods are measured on the same resampled patients, so that differences are paired. An interval covers the choice of films,
not that of training seeds, whose spread has columns of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medbridge.data.tasks import Target
from medbridge.metrics.bootstrap import bootstrap_aucs, checked_arrays, defined_mean, group_codes, label_and_mean, percentiles
from medbridge.metrics.evaluate import PairedDifference, auc, paired_difference


@dataclass(frozen=True)
class Measured:
    """AUC of one method."""

    runs: np.ndarray  # (R,): one per seed
    draws: np.ndarray  # (n_boot,): the mean over the runs in each resample of the patients

    def row(self, reference: Measured | None = None) -> dict[str, float]:
        """auc, lo, hi, auc_min, auc_max, seed_sd, seeds; the reference minus it: ours_minus, ours_lo, ours_hi (else NaN)."""
        lo, hi = np.ravel(percentiles(self.draws[:, None]))
        minus = minus_lo = minus_hi = np.nan
        if reference is not None:
            minus = reference.runs.mean() - self.runs.mean()
            minus_lo, minus_hi = np.ravel(percentiles((reference.draws - self.draws)[:, None]))
        spread = np.std(self.runs, ddof=1) if len(self.runs) > 1 else np.nan
        return {"auc": self.runs.mean(), "lo": lo, "hi": hi, "auc_min": self.runs.min(), "auc_max": self.runs.max(),
                "seed_sd": spread, "seeds": len(self.runs), "ours_minus": minus, "ours_lo": minus_lo, "ours_hi": minus_hi}


def with_interval(value: float, lo: float, hi: float, sign: str = "") -> str:
    """``0.712 [0.650, 0.770]``; with ``sign`` '+' of a difference. NaN: 'undefined', and an empty cell for a difference; without
    an interval the value alone."""
    if np.isnan(value):
        return "" if sign else "undefined"
    return f"{value:{sign}.3f}" if np.isnan(lo) else f"{value:{sign}.3f} [{lo:{sign}.3f}, {hi:{sign}.3f}]"


def measure(target: Target, runs: Sequence[np.ndarray], n_boot: int, seed: int) -> list[Measured]:
    """The mean over the labels that are defined, then each of the S labels; ``runs``: scores ``(n, S)``, one per seed."""
    y, known = target.test.targets()
    points = np.stack([auc(y, scores, known) for scores in runs])
    checked = [checked_arrays(y, scores, known) for scores in runs]
    codes = group_codes(target.test.table["patient_id"], len(y))
    (y, _, known), runs = checked[0], [scores for _, scores, _ in checked]
    draws, mean = label_and_mean(bootstrap_aucs(y, runs, known, codes, n_boot, seed).mean(axis=0), y, known, codes)
    return [Measured(defined_mean(points), mean), *map(Measured, points.T, draws.T)]


def mean_over(parts: Sequence[Measured]) -> Measured:
    """The mean over those targets (or folds, or labels), each resampled apart, that are defined."""
    return Measured(*(defined_mean(np.stack([getattr(m, name) for m in parts], axis=-1)) for name in ("runs", "draws")))


def over_folds(folds: Sequence[Sequence[Measured]]) -> list[Measured]:
    """What :func:`measure` says of each fold -> the mean over the labels, then each label's mean AUC over the folds.

    Each fold's AUC is an unbiased estimate for models that were trained on others. One AUC of all out-of-fold scores is not: the
    scores of different models have no common scale, and the more positives a fold holds, the fewer its model was trained on,
    which ranks films against their labels. Patients are resampled within their folds, for all methods alike.
    """
    labels = [mean_over(label) for label in list(zip(*folds, strict=True))[1:]]
    return [mean_over(labels), *labels]


def difference(
    target: Target, runs: Sequence[np.ndarray], reference: Sequence[np.ndarray], n_boot: int = 2000, seed: int = 0
) -> PairedDifference:
    """Mean AUC of some runs minus that of others."""
    y, known = target.test.targets()
    return paired_difference(y, runs, reference, known, target.test.table["patient_id"], n_boot, seed, labels=target.test.labels)


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values after Holm's correction, float64, in the order given; NaN stays NaN and does not count.

    Whoever calls different only what is below a level makes any false claim at all with at most that probability (S. Holm, 1979).
    """
    p = np.asarray(p, dtype=np.float64)
    out, order = np.full(len(p), np.nan), np.argsort(p, kind="stable")[: np.sum(~np.isnan(p))]  # NaN comes last
    out[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return out
