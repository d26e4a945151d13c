"""What changed between two films of a patient? New, resolved or unchanged, for each label, from the films' scores. [ours]

After TemMed-Bench (Zhang et al., arXiv 2509.25143), which asks language models. Here the difference of a label's two logits says
it: new where z(after) - z(before) > t, resolved where it is < -t, t from validation pairs. Compared with the later film alone.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medbridge.data import Benchmark
from medbridge.errors import EvaluationError
from medbridge.metrics.bootstrap import bootstrap_sums, group_codes, percentiles
from medbridge.metrics.evaluate import Evaluation, PairedDifference, evaluate, paired_difference

CHANGES = {"resolved": -1, "unchanged": 0, "new": 1}


@dataclass(frozen=True)
class FilmPairs:
    """M pairs of consecutive films of one patient."""

    before: np.ndarray  # int (M,): rows of the benchmark, and so is after
    after: np.ndarray
    patients: np.ndarray  # (M,)
    change: np.ndarray  # int8 (M, C): -1 resolved, 0 unchanged, 1 new
    known: np.ndarray  # bool (M, C): the label of both films is known
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.before)

    def differences(self, logits: np.ndarray) -> np.ndarray:
        """Scores ``(n, C)`` of the benchmark's films -> ``(M, C)``: after minus before."""
        return logits[self.after] - logits[self.before]


def film_pairs(benchmark: Benchmark) -> FilmPairs:
    """Consecutive films of each patient; the table must list them in the order in which they were taken."""
    patients = benchmark.table["patient_id"].to_numpy()
    films_of = pd.Series(np.arange(len(patients))).groupby(patients, sort=False).apply(list)
    before, after = (np.array([i for films in films_of for i in films[part]], int) for part in (slice(-1), slice(1, None)))
    if not len(before):
        raise EvaluationError(f"benchmark {benchmark.name!r}: no patient has two films, so nothing can have changed")
    y, mask = benchmark.targets()
    change = (y[after] - y[before]).astype(np.int8)
    return FilmPairs(before, after, patients[before], change, mask[before] & mask[after], tuple(benchmark.labels))


def tell_change(differences: np.ndarray, threshold: float) -> np.ndarray:
    """int8, the shape of ``differences``: 1 new, -1 resolved, 0 unchanged."""
    return np.sign(differences).astype(np.int8) * (np.abs(differences) > threshold).astype(np.int8)


def _answers(predicted: np.ndarray, change: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per pair, how often each of the three answers is the right one, and how often it is predicted then: int ``(M, 3)``."""
    true = np.stack([known & (change == c) for c in CHANGES.values()], axis=-1)
    return tuple(x.reshape(len(x), -1, 3).sum(axis=1) for x in (true, true & (predicted == change)[..., None]))


def balanced_accuracy(predicted: np.ndarray, change: np.ndarray, known: np.ndarray) -> float:
    """Mean recall over the three answers, all labels together; a third is chance, NaN where one of the three never happens."""
    true, right = (x.sum(axis=0) for x in _answers(predicted, change, known))
    return float(np.mean(right / true)) if true.all() else float("nan")


def fit_threshold(differences: np.ndarray, pairs: FilmPairs) -> float:
    """The t with the best balanced accuracy on these (validation) pairs; the middle of the best ones where several are."""
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
    """Result of :func:`change_report`."""

    new: Evaluation  # of the difference, against all other pairs; chance is 0.5
    resolved: Evaluation
    new_gain: PairedDifference  # the difference against the later film alone
    resolved_gain: PairedDifference
    accuracy: float  # balanced accuracy over the three answers, a third is chance; lo, hi: its interval over patients
    lo: float
    hi: float
    pairs: int
    counts: dict[str, int]  # answer -> how often it is right, over all labels


def change_report(pairs: FilmPairs, logits: np.ndarray, threshold: float, n_boot: int = 1000, seed: int = 0) -> ChangeReport:
    """How well the difference of two test films' logits ``(n, C)`` shows what changed, beside chance and the later film alone."""
    d, later = pairs.differences(logits), logits[pairs.after]
    shared = {"mask": pairs.known, "groups": pairs.patients, "seed": seed, "labels": pairs.labels, "n_boot": n_boot}
    new, resolved = (np.float64(pairs.change == c) for c in (1, -1))
    answers = tell_change(d, threshold), pairs.change, pairs.known
    true, right = _answers(*answers)
    codes = group_codes(pairs.patients, len(pairs))
    with np.errstate(invalid="ignore"):  # a resample without one of the answers has no balanced accuracy
        draws = np.divide(*(bootstrap_sums(x, codes, n_boot, seed) for x in (right, true)))
    [lo], [hi] = percentiles(draws.mean(axis=1))
    return ChangeReport(
        evaluate(new, d, **shared), evaluate(resolved, -d, **shared),
        paired_difference(new, d, later, **shared), paired_difference(resolved, -d, -later, **shared),
        balanced_accuracy(*answers), float(lo), float(hi), len(pairs), dict(zip(CHANGES, true.sum(axis=0).tolist(), strict=True)))
