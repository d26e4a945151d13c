"""Scores -> rows of tables: AUC over seeds with intervals over patients, and paired differences. [ours]

All methods are measured on the same resampled patients, so that differences are paired. An interval covers the choice of films,
not that of training seeds, whose spread has columns of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medbridge.data.tasks import Target
from medbridge.metrics.bootstrap import bootstrap_aucs, checked_arrays, defined_mean, group_codes, percentiles
from medbridge.metrics.evaluate import PairedDifference, auc, paired_difference


@dataclass(frozen=True)
class Measured:
    """AUC of one method.

    Attributes:
        runs: ``(R,)``, one per seed. draws: ``(n_boot,)``, the mean over the runs in each resample of the patients.
    """

    runs: np.ndarray
    draws: np.ndarray

    def row(self, reference: Measured | None = None) -> dict[str, float]:
        """auc, lo, hi, auc_min, auc_max, seed_sd, seeds; and the reference minus it: minus, minus_lo, minus_hi (else NaN)."""
        lo, hi = _interval(self.draws)
        minus, minus_lo, minus_hi = np.nan, np.nan, np.nan
        if reference is not None:
            minus, (minus_lo, minus_hi) = reference.runs.mean() - self.runs.mean(), _interval(reference.draws - self.draws)
        spread = np.std(self.runs, ddof=1) if len(self.runs) > 1 else np.nan
        return {"auc": self.runs.mean(), "lo": lo, "hi": hi, "auc_min": self.runs.min(), "auc_max": self.runs.max(),
                "seed_sd": spread, "seeds": len(self.runs), "minus": minus, "minus_lo": minus_lo, "minus_hi": minus_hi}


def _interval(draws: np.ndarray) -> tuple[float, float]:
    lo, hi = percentiles(draws[:, None], 0.95)
    return lo[0], hi[0]


def measure(target: Target, runs: Sequence[np.ndarray], n_boot: int, seed: int) -> list[Measured]:
    """The mean over the labels that are defined, then each of the S labels.

    Args:
        target: n films. runs: scores ``(n, S)``, one per seed.
        n_boot, seed: of the bootstrap.
    """
    y, known = target.test.targets()
    points = np.stack([auc(y, scores, known) for scores in runs])
    checked = [checked_arrays(y, scores, known) for scores in runs]
    codes = group_codes(target.test.table["patient_id"], len(y))
    draws = bootstrap_aucs(checked[0][0], [scores for _, scores, _ in checked], checked[0][2], codes, n_boot, seed).mean(axis=0)
    return [Measured(defined_mean(points), defined_mean(draws)), *map(Measured, points.T, draws.T)]


def mean_over(parts: Sequence[Measured]) -> Measured:
    """The mean over targets, each resampled apart."""
    return Measured(np.mean([m.runs for m in parts], axis=0), np.mean([m.draws for m in parts], axis=0))


def difference(
    target: Target, runs: Sequence[np.ndarray], reference: Sequence[np.ndarray], n_boot: int = 2000, seed: int = 0
) -> PairedDifference:
    """Mean AUC of some runs minus that of others."""
    y, known = target.test.targets()
    test = target.test
    return paired_difference(y, runs, reference, known, test.table["patient_id"], n_boot, seed, labels=test.labels)


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values after Holm's correction, float64, in the order given; NaN stays NaN and does not count.

    Whoever calls different only what is below a level makes any false claim at all with at most that probability (S. Holm, "A
    simple sequentially rejective multiple test procedure", 1979).
    """
    p = np.asarray(p, dtype=np.float64)
    out, given = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = given[np.argsort(p[given], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return out
