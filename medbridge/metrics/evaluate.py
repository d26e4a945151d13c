"""How good are the scores, how sure are we, and is A better than B?

Per label and macro ROC AUC with average precision (the paper's metric is AUC), percentile intervals from a
bootstrap that draws patients, not films (films of one patient are no independent evidence), a paired
comparison on the same resamples, and calibration. Intervals and the paired test are [ours].

A label with one class among its known films has no AUC: it is NaN, shown as 'undefined', and left out of the
mean. A chance value of 0.5 in its place would be an invented result.

Arrays: y (n, C) of 0 / 1 (NaN = unknown), scores (n, C) where higher means more likely, mask (n, C) True
where known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from medbridge.metrics.bootstrap import (
    EvaluationError,
    bootstrap_aucs,
    checked_arrays,
    defined_mean,
    group_codes,
    percentiles,
)

__all__ = [
    "Evaluation",
    "EvaluationError",
    "PairedDifference",
    "auc",
    "bootstrap_auc",
    "brier",
    "ece",
    "evaluate",
    "json_safe",
    "paired_difference",
]

@dataclass(frozen=True)
class Evaluation:
    """Result of :func:`evaluate`.

    Attributes:
        per_label: one row a label: label, n (known films), positives, auc, auc_lo, auc_hi, ap, resamples (how
            many bootstrap resamples held both classes, and so count in the interval). NaN where undefined.
        macro: auc, lo, hi, ap (means over the labels that are defined) and n_defined.
        settings: n (films), groups (patients), n_boot, seed, level.
    """

    per_label: pd.DataFrame
    macro: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: plain numbers and strings, NaN as None."""
        rows = self.per_label.to_dict(orient="records")
        return json_safe({"macro": self.macro, "per_label": rows, "settings": self.settings})

    def table(self) -> str:
        """The result as text, one line a label and one for the mean."""
        width = max(len("macro"), *(len(str(label)) for label in self.per_label["label"]))
        percent = f"{100 * self.settings.get('level', 0.95):g} % interval"
        lines = [f"{'label':<{width}}  {'n':>7}  {'positive':>8}  {'AUC':>9}  {percent:<16}  {'AP':>9}"]
        for row in self.per_label.itertuples():
            lines.append(
                f"{row.label:<{width}}  {row.n:>7}  {row.positives:>8}  {_number(row.auc):>9}  "
                f"{_interval(row.auc_lo, row.auc_hi):<16}  {_number(row.ap):>9}"
            )
        m = self.macro
        lines.append(
            f"{'macro':<{width}}  {self.settings.get('n', ''):>7}  {'':>8}  {_number(m['auc']):>9}  "
            f"{_interval(m['lo'], m['hi']):<16}  {_number(m['ap']):>9}"
        )
        left_out = len(self.per_label) - m["n_defined"]
        if left_out:
            lines.append(
                f"macro: mean over {m['n_defined']} labels; {left_out} undefined (one class only) left out"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class PairedDifference:
    """Result of :func:`paired_difference`: macro AUC of A minus that of B.

    Attributes:
        diff, lo, hi: the difference and its percentile interval.
        p_value: two-sided bootstrap p, (1 + count beyond zero) / (n_boot + 1), doubled; never 0.
        per_label: label, diff, lo, hi.
        verdict: one sentence; says 'interval holds zero' where it does.
        settings: n, groups, n_boot, seed, level, runs of A and of B, n_defined (labels in the mean).
    """

    diff: float
    lo: float
    hi: float
    p_value: float
    per_label: pd.DataFrame
    verdict: str
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: plain numbers and strings, NaN as None."""
        return json_safe({**self.__dict__, "per_label": self.per_label.to_dict(orient="records")})


def auc(y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """ROC AUC of each label over its known films (scikit-learn): float64 (C,), NaN where one class lacks."""
    y, scores, mask = checked_arrays(y, scores, mask)
    return _point(y, scores, mask, roc_auc_score)


def evaluate(
    y: np.ndarray,
    scores: np.ndarray,
    mask: np.ndarray | None = None,
    groups: Sequence[Any] | None = None,
    labels: Sequence[str] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Evaluation:
    """AUC and average precision of each label and their mean, with intervals.

    Args:
        y, scores, mask: (n, C), or (n,) for one label; see the module's docstring.
        groups: (n,) patient of each film; the bootstrap draws patients. None: every film is its own patient.
        labels: C names. n_boot: resamples (0: no intervals). seed: of the resamples. level: of the intervals.

    Raises:
        EvaluationError: shapes that differ, NaN or infinite scores, targets outside 0 / 1 / NaN, bad level or
        n_boot.
    """
    y, scores, mask = checked_arrays(y, scores, mask)
    names = _names(labels, y.shape[1])
    codes = group_codes(groups, len(y))
    _check_settings(n_boot, level)
    aucs = _point(y, scores, mask, roc_auc_score)
    aps = _point(y, scores, mask, average_precision_score)
    draws = bootstrap_aucs(y, [scores], mask, codes, n_boot, seed)[0]
    lo, hi = percentiles(draws, level)
    per_label = pd.DataFrame(
        {
            "label": names,
            "n": mask.sum(axis=0),
            "positives": ((y == 1) & mask).sum(axis=0),
            "auc": aucs,
            "auc_lo": lo,
            "auc_hi": hi,
            "ap": aps,
            "resamples": np.sum(~np.isnan(draws), axis=0),
        }
    )
    macro_lo, macro_hi = percentiles(defined_mean(draws)[:, None], level)
    macro = {
        "auc": float(defined_mean(aucs)),
        "lo": float(macro_lo[0]),
        "hi": float(macro_hi[0]),
        "ap": float(defined_mean(aps)),
        "n_defined": int(np.sum(~np.isnan(aucs))),
    }
    settings = {"n": len(y), "groups": int(codes.max()) + 1, "n_boot": n_boot, "seed": seed, "level": level}
    return Evaluation(per_label, macro, settings)


def paired_difference(
    y: np.ndarray,
    scores_a: np.ndarray | Sequence[np.ndarray],
    scores_b: np.ndarray | Sequence[np.ndarray],
    mask: np.ndarray | None = None,
    groups: Sequence[Any] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    labels: Sequence[str] | None = None,
) -> PairedDifference:
    """Is A better than B on these films? Macro AUC of A minus B, both on the same resampled patients.

    Args:
        scores_a, scores_b: one (n, C) array each, or a list of them (one a training seed): then the mean over
            the runs of the macro AUC is compared. The interval covers the choice of films, not that of
            training seeds.
        y, mask, groups, labels, n_boot, seed, level: as in :func:`evaluate`.

    Raises:
        EvaluationError: as :func:`evaluate`; the message names the run.
    """
    runs = [*_runs(scores_a, "scores_a"), *_runs(scores_b, "scores_b")]
    n_a = sum(name.startswith("scores_a") for name, _ in runs)
    targets, known = y, mask
    arrays = []
    for name, scores in runs:
        y, scores, mask = checked_arrays(targets, scores, known, name)
        arrays.append(scores)
    names = _names(labels, y.shape[1])
    codes = group_codes(groups, len(y))
    _check_settings(n_boot, level, least=1)

    points = np.stack([_point(y, scores, mask, roc_auc_score) for scores in arrays])
    draws = bootstrap_aucs(y, arrays, mask, codes, n_boot, seed)
    # A label is undefined for all runs at once (the classes are those of y), so its NaN leaves both means.
    diffs = points[:n_a].mean(axis=0) - points[n_a:].mean(axis=0)
    diff_draws = draws[:n_a].mean(axis=0) - draws[n_a:].mean(axis=0)
    diff, macro_draws = float(defined_mean(diffs)), defined_mean(diff_draws)
    lo, hi = (float(bound[0]) for bound in percentiles(macro_draws[:, None], level))
    label_lo, label_hi = percentiles(diff_draws, level)

    valid = macro_draws[~np.isnan(macro_draws)]
    tail = min(int(np.sum(valid <= 0)), int(np.sum(valid >= 0)))
    p_value = min(1.0, 2 * (1 + tail) / (1 + len(valid))) if len(valid) else math.nan
    settings = {
        "n": len(y),
        "groups": int(codes.max()) + 1,
        "n_boot": n_boot,
        "seed": seed,
        "level": level,
        "runs_a": n_a,
        "runs_b": len(arrays) - n_a,
        "n_defined": int(np.sum(~np.isnan(diffs))),
    }
    per_label = pd.DataFrame({"label": names, "diff": diffs, "lo": label_lo, "hi": label_hi})
    return PairedDifference(diff, lo, hi, p_value, per_label, _verdict(diff, lo, hi, level), settings)


def bootstrap_auc(
    y: np.ndarray,
    scores: np.ndarray,
    mask: np.ndarray | None = None,
    groups: Sequence[Any] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """AUC of each label in each resample of the patients: float64 (n_boot, C), NaN for one class alone."""
    y, scores, mask = checked_arrays(y, scores, mask)
    _check_settings(n_boot, 0.95)
    return bootstrap_aucs(y, [scores], mask, group_codes(groups, len(y)), n_boot, seed)[0]


def ece(y: np.ndarray, p: np.ndarray, mask: np.ndarray | None = None, bins: int = 15) -> float:
    """Expected calibration error over all known film-label pairs: bins of equal width, weighted by their
    counts.

    p: probabilities in [0, 1]. NaN where nothing is known.
    """
    y, p = _known_probabilities(y, p, mask)
    if not len(p):
        return math.nan
    which = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=p, minlength=bins) - np.bincount(which, weights=y, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def brier(y: np.ndarray, p: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean squared error of probabilities p over all known film-label pairs. NaN where nothing is known."""
    y, p = _known_probabilities(y, p, mask)
    return float(np.mean((p - y) ** 2)) if len(p) else math.nan


def _point(y: np.ndarray, scores: np.ndarray, mask: np.ndarray, metric: Any) -> np.ndarray:
    values = np.full(y.shape[1], np.nan)
    for label in range(y.shape[1]):
        known = mask[:, label]
        if len(np.unique(y[known, label])) == 2:
            values[label] = metric(y[known, label], scores[known, label])
    return values


def _check_settings(n_boot: int, level: float, least: int = 0) -> None:
    if n_boot < least:
        raise EvaluationError(f"n_boot={n_boot}; give at least {least}")
    if not 0 < level < 1:
        raise EvaluationError(f"level={level}; give a share between 0 and 1, such as 0.95")


def _runs(scores: np.ndarray | Sequence[np.ndarray], name: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(scores, np.ndarray):
        return [(name, scores)]
    if not len(scores):
        raise EvaluationError(f"{name} is an empty list; give one (n, C) array a training run")
    return [(f"{name}[{i}]", np.asarray(run)) for i, run in enumerate(scores)]


def _names(labels: Sequence[str] | None, count: int) -> list[str]:
    names = [f"label {i}" for i in range(count)] if labels is None else list(labels)
    if len(names) != count:
        raise EvaluationError(f"labels names {len(names)} labels, y has {count} columns")
    return names


def _known_probabilities(
    y: np.ndarray, p: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    y, p, known = checked_arrays(y, p, mask, "p")
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise EvaluationError("p holds values outside [0, 1]; give probabilities, not logits")
    return y[known], p[known]


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def _interval(lo: float, hi: float) -> str:
    return "" if math.isnan(lo) else f"[{lo:.3f}, {hi:.3f}]"


def _verdict(diff: float, lo: float, hi: float, level: float) -> str:
    if math.isnan(diff) or math.isnan(lo):
        return "undefined: no label has both classes"
    text = f"macro AUC of A minus B: {diff:+.4f}, {100 * level:g} % interval [{lo:+.4f}, {hi:+.4f}]"
    if lo <= 0 <= hi:
        return f"{text}: interval holds zero, no difference is shown"
    return f"{text}: {'A is better than B' if lo > 0 else 'B is better than A'} on these films"


def json_safe(value: Any) -> Any:
    """Dictionaries, lists and numbers of NumPy as JSON can hold them: NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(k): json_safe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
