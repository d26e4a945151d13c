"""What changed between two films of a patient? New, resolved or unchanged, for each label, from the films' scores. [ours]

After TemMed-Bench (Zhang et al., arXiv 2509.25143), a benchmark of questions, reports and image pairs about what changed between
two visits. Theirs: the question, and the finding that most vision-language models are poor at it. Ours: no language; the change
of a label is told from the difference of its two logits,

    d = z(after) - z(before),    new where d > t,  resolved where d < -t,  unchanged between,

with t chosen on validation pairs. The comparison is the later film alone: who only looks at it also knows something about change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medbridge.data import Benchmark
from medbridge.metrics.bootstrap import EvaluationError, group_codes, percentiles
from medbridge.metrics.evaluate import Evaluation, PairedDifference, evaluate, paired_difference

__all__ = ["CHANGES", "ChangeReport", "FilmPairs", "change_report", "film_pairs", "fit_threshold", "tell_change"]

CHANGES = ("resolved", "unchanged", "new")


@dataclass(frozen=True)
class FilmPairs:
    """M pairs of consecutive films of one patient.

    Attributes:
        before, after: int ``(M,)``: rows of the benchmark.
        patients: ``(M,)``.
        change: int8 ``(M, C)``: -1 resolved, 0 unchanged, 1 new. known: bool ``(M, C)``: both films' label is known.
        labels: C names.
    """

    before: np.ndarray
    after: np.ndarray
    patients: np.ndarray
    change: np.ndarray
    known: np.ndarray
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.before)

    def differences(self, logits: np.ndarray) -> np.ndarray:
        """Scores ``(n, C)`` of the benchmark's films -> ``(M, C)``: after minus before."""
        return logits[self.after] - logits[self.before]


def film_pairs(benchmark: Benchmark, order: str | None = None) -> FilmPairs:
    """Consecutive films of each patient.

    Args:
        benchmark: films; those of a patient in the order in which they were taken.
        order: column that says the order (a date, a study number); default the table's own order.

    Raises:
        EvaluationError: an unknown column, or no patient with two films.
    """
    table = benchmark.table
    if order is not None and order not in table.columns:
        raise EvaluationError(f"order={order!r} is no column of {benchmark.name!r}; it has {', '.join(table.columns)}")
    patients, rows = table["patient_id"].to_numpy(), np.arange(len(table))
    if order is not None:
        rows = np.argsort(table[order].to_numpy(), kind="stable")
    before, after = [], []
    for films in pd.Series(rows).groupby(patients[rows], sort=False).apply(list):
        before += films[:-1]
        after += films[1:]
    if not before:
        raise EvaluationError(f"benchmark {benchmark.name!r}: no patient has two films, so nothing can have changed")
    y, mask = benchmark.targets()
    first, second = np.array(before), np.array(after)
    change = (y[second] - y[first]).astype(np.int8)
    return FilmPairs(first, second, patients[first], change, mask[first] & mask[second], tuple(benchmark.labels))


def tell_change(differences: np.ndarray, threshold: float) -> np.ndarray:
    """int8, the shape of ``differences``: 1 new, -1 resolved, 0 unchanged."""
    return np.sign(differences).astype(np.int8) * (np.abs(differences) > threshold).astype(np.int8)


def balanced_accuracy(told: np.ndarray, change: np.ndarray, known: np.ndarray) -> float:
    """Mean recall over the three answers, all labels together; a third is chance, and what 'always unchanged' gets.

    NaN where one of the three never happens.
    """
    recalls = [(told == c)[known & (change == c)] for c in (-1, 0, 1)]
    return float(np.mean([r.mean() for r in recalls])) if all(len(r) for r in recalls) else float("nan")


def fit_threshold(differences: np.ndarray, pairs: FilmPairs) -> float:
    """The t with the best balanced accuracy on these (validation) pairs; the middle of the best ones where several are.

    Raises:
        EvaluationError: one of the three answers never happens in these pairs.
    """
    sizes = np.unique(np.abs(differences[pairs.known]))
    tried = np.concatenate([[0.0], (sizes[1:] + sizes[:-1]) / 2])
    tried = tried[:: max(1, len(tried) // 400)]
    merits = np.array([balanced_accuracy(tell_change(differences, t), pairs.change, pairs.known) for t in tried])
    if np.isnan(merits).all():
        raise EvaluationError("these pairs lack new, resolved or unchanged findings, so no threshold can be chosen on them")
    best = np.flatnonzero(merits >= merits.max() - 1e-12)
    return float(tried[best[len(best) // 2]])


@dataclass(frozen=True)
class ChangeReport:
    """Result of :func:`change_report`.

    Attributes:
        new, resolved: AUC by label and in the mean of the difference, against all other pairs; chance is 0.5.
        new_gain, resolved_gain: the difference against the later film alone, paired.
        accuracy, lo, hi: balanced accuracy over the three answers and its interval over patients; a third is chance.
        threshold: t. pairs: M. counts: answer -> how often it is right, over all labels.
    """

    new: Evaluation
    resolved: Evaluation
    new_gain: PairedDifference
    resolved_gain: PairedDifference
    accuracy: float
    lo: float
    hi: float
    threshold: float
    pairs: int
    counts: dict[str, int]


def change_report(
    pairs: FilmPairs, logits: np.ndarray, threshold: float, n_boot: int = 1000, seed: int = 0, level: float = 0.95
) -> ChangeReport:
    """How well the difference of two films' logits tells what changed, beside chance and the later film alone.

    Args:
        pairs: of the test films. logits: ``(n, C)`` of the benchmark that the pairs' rows name.
        threshold: of :func:`fit_threshold`.
    """
    d, later = pairs.differences(logits), logits[pairs.after]
    options = {"seed": seed, "level": level, "labels": pairs.labels, "n_boot": n_boot}
    new, resolved = (np.float64(pairs.change == c) for c in (1, -1))
    told = tell_change(d, threshold)
    codes, rng = group_codes(pairs.patients, len(pairs)), np.random.default_rng(seed)
    films_of = [np.flatnonzero(codes == c) for c in range(codes.max() + 1)]
    draws = []
    for _ in range(n_boot):
        rows = np.concatenate([films_of[i] for i in rng.integers(len(films_of), size=len(films_of))])
        draws.append(balanced_accuracy(told[rows], pairs.change[rows], pairs.known[rows]))
    lo, hi = percentiles(np.array(draws)[:, None], level)
    counts = {name: int((pairs.known & (pairs.change == c)).sum()) for name, c in zip(CHANGES, (-1, 0, 1), strict=True)}
    return ChangeReport(
        evaluate(new, d, pairs.known, pairs.patients, **options), evaluate(resolved, -d, pairs.known, pairs.patients, **options),
        paired_difference(new, d, later, pairs.known, pairs.patients, **options),
        paired_difference(resolved, -d, -later, pairs.known, pairs.patients, **options),
        balanced_accuracy(told, pairs.change, pairs.known), float(lo[0]), float(hi[0]), threshold, len(pairs), counts)
