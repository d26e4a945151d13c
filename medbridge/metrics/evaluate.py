"""How good are the scores, how sure are we, and is A better than B?

AUC and average precision, with a bootstrap that draws patients: films of one patient are no independent evidence. A label
with one class among its known films is NaN and left out of means; an AUC of 0.5 in its place would be an invented result.
Arrays: y ``(n, C)`` of 0 / 1 (NaN = unknown), scores ``(n, C)`` where higher means more likely, mask ``(n, C)`` True where known.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from medbridge.errors import EvaluationError
from medbridge.metrics.bootstrap import bootstrap_aucs, by_label, checked_arrays, defined_mean, label_and_mean, percentiles, plan


@dataclass(frozen=True)
class Evaluation:
    """Result of :func:`evaluate`."""

    macro: dict[str, float]  # auc, lo, hi (95 %), ap (means over the labels that are defined) and n_defined
    per_label: pd.DataFrame  # label, n (known films), positives, auc, auc_lo, auc_hi, ap, resamples (that held both classes)
    settings: dict[str, Any]  # n (films), groups (patients), n_boot, seed, level

    def table(self) -> str:
        """The result as text, one line per label and one for the mean."""
        m, width = self.macro, max(len("macro"), *(len(str(label)) for label in self.per_label["label"]))
        rows = [("label", "n", "positive", "AUC", "95 % interval", "AP")]
        mean = ("macro", self.settings["n"], "", m["auc"], m["lo"], m["hi"], m["ap"])
        for label, n, positives, auc, lo, hi, ap, *_ in (*self.per_label.itertuples(index=False), mean):
            auc, ap = ("undefined" if math.isnan(value) else f"{value:.3f}" for value in (auc, ap))
            rows.append((label, n, positives, auc, "" if math.isnan(lo) else f"[{lo:.3f}, {hi:.3f}]", ap))
        lines = [f"{label:<{width}}  {n:>7}  {positives:>8}  {auc:>9}  {interval:<16}  {ap:>9}"
                 for label, n, positives, auc, interval, ap in rows]
        if "" in (interval for label, _, _, value, interval, _ in rows[1:-1] if value != "undefined") and self.settings["n_boot"]:
            lines += ["no interval where the positive or the negative films are all of one patient"]
        if left_out := len(self.per_label) - m["n_defined"]:
            lines += [f"macro: mean over {m['n_defined']} labels; {left_out} undefined (one class only) left out"]
        return "\n".join(lines)


@dataclass(frozen=True)
class PairedDifference:
    """Result of :func:`paired_difference`: macro AUC of A minus that of B, and its percentile interval."""

    diff: float
    lo: float
    hi: float
    p_value: float  # two-sided bootstrap p, (1 + count beyond zero) / (n_boot + 1), doubled; never 0
    per_label: pd.DataFrame  # label, diff, lo, hi
    verdict: str  # one sentence; says 'interval holds zero' where it does
    settings: dict[str, Any]  # n, groups, n_boot, seed, level, runs of A and of B, n_defined (labels in the mean)


def auc(y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """ROC AUC of each label over its known films (scikit-learn): float64 ``(C,)``."""
    return by_label(roc_auc_score, *checked_arrays(y, scores, mask))


def bootstrap_auc(
    y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None, groups: Sequence[Any] | None = None, n_boot: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """AUC of each label in each resample of the patients: float64 ``(n_boot, C)``."""
    y, scores, mask = checked_arrays(y, scores, mask)
    return bootstrap_aucs(y, [scores], mask, plan(y, groups, None, n_boot, seed)[1], n_boot, seed)[0]


def evaluate(
    y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None, groups: Sequence[Any] | None = None,
    labels: Sequence[str] | None = None, n_boot: int = 1000, seed: int = 0,
) -> Evaluation:
    """AUC and average precision of each label ``(n, C)``, or of one ``(n,)``, and their mean, with intervals.

    ``groups`` ``(n,)``: patient of each film (None: each its own). ``labels``: C names. ``n_boot``: resamples (0: no intervals),
    drawn by ``seed``. EvaluationError: shapes that differ, NaN or infinite scores, targets beside 0, 1, NaN, bad n_boot.
    """
    y, scores, mask = checked_arrays(y, scores, mask)
    names, codes, settings = plan(y, groups, labels, n_boot, seed)
    aucs, aps = (by_label(metric, y, scores, mask) for metric in (roc_auc_score, average_precision_score))
    draws = bootstrap_aucs(y, [scores], mask, codes, n_boot, seed)[0]
    label_draws, macro_draws = label_and_mean(draws, y, mask, codes)
    lo, hi = percentiles(label_draws)
    per_label = pd.DataFrame({
        "label": names, "n": mask.sum(axis=0), "positives": ((y == 1) & mask).sum(axis=0), "auc": aucs, "auc_lo": lo,
        "auc_hi": hi, "ap": aps, "resamples": np.sum(~np.isnan(draws), axis=0)})
    [lo], [hi] = percentiles(macro_draws)
    macro = {"auc": float(defined_mean(aucs)), "lo": float(lo), "hi": float(hi), "ap": float(defined_mean(aps)),
             "n_defined": int(np.sum(~np.isnan(aucs)))}
    return Evaluation(macro, per_label, settings)


def paired_difference(
    y: np.ndarray, scores_a: np.ndarray | Sequence[np.ndarray], scores_b: np.ndarray | Sequence[np.ndarray],
    mask: np.ndarray | None = None, groups: Sequence[Any] | None = None, n_boot: int = 2000, seed: int = 0,
    labels: Sequence[str] | None = None,
) -> PairedDifference:
    """Is A better than B on these films? Macro AUC of A minus B, both on the same resampled patients.

    Scores are one ``(n, C)`` array, or a list of them (one per training seed), whose mean macro AUC is compared. The interval
    covers the choice of films, not that of seeds. The rest is as in :func:`evaluate`; an error names the run.
    """
    runs_a, runs_b = _runs(scores_a, "scores_a"), _runs(scores_b, "scores_b")
    checked = [checked_arrays(y, scores, mask, name) for name, scores in (runs_a | runs_b).items()]
    (y, _, mask), arrays = checked[0], [scores for _, scores, _ in checked]
    names, codes, settings = plan(y, groups, labels, n_boot, seed, least=1)
    points = np.stack([by_label(roc_auc_score, y, scores, mask) for scores in arrays])
    draws = bootstrap_aucs(y, arrays, mask, codes, n_boot, seed)
    # a label is undefined for all runs at once (the classes are those of y), so its NaN leaves both means
    diffs, diff_draws = (x[: len(runs_a)].mean(axis=0) - x[len(runs_a) :].mean(axis=0) for x in (points, draws))
    diff_draws, macro_draws = label_and_mean(diff_draws, y, mask, codes)
    label_lo, label_hi = percentiles(diff_draws)
    per_label = pd.DataFrame({"label": names, "diff": diffs, "lo": label_lo, "hi": label_hi})
    diff = float(defined_mean(diffs))
    lo, hi = (float(bound) for [bound] in percentiles(macro_draws))
    valid = macro_draws[~np.isnan(macro_draws)]
    tail = min(int(np.sum(valid <= 0)), int(np.sum(valid >= 0)))
    p_value = min(1.0, 2 * (1 + tail) / (1 + len(valid))) if len(valid) else math.nan
    settings |= {"runs_a": len(runs_a), "runs_b": len(runs_b), "n_defined": int(np.sum(~np.isnan(diffs)))}
    verdict = ("undefined: no label has both classes" if math.isnan(diff) else
               f"macro AUC of A minus B: {diff:+.4f}; no interval, as the films of a class are all of one patient")
    if not math.isnan(diff) and not math.isnan(lo):
        sure = "A is better than B on these films" if lo > 0 else "B is better than A on these films"
        verdict = (f"macro AUC of A minus B: {diff:+.4f}, 95 % interval [{lo:+.4f}, {hi:+.4f}]: "
                   f"{'interval holds zero, no difference is shown' if lo <= 0 <= hi else sure}")
    return PairedDifference(diff, lo, hi, p_value, per_label, verdict, settings)


def _runs(scores: np.ndarray | Sequence[np.ndarray], name: str) -> dict[str, np.ndarray]:
    if isinstance(scores, np.ndarray):
        return {name: scores}
    if not len(scores):
        raise EvaluationError(f"{name} is an empty list; give one (n, C) array per training run")
    return {f"{name}[{i}]": run for i, run in enumerate(scores)}


def auc_and_loss(y: np.ndarray, p: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Mean AUC over the labels that have one (NaN where none has), and the mean log-loss (infinite where nothing is known)."""
    defined = auc(y, p, mask)
    defined = defined[~np.isnan(defined)]
    p = p.clip(1e-7, 1 - 1e-7)
    loss = -(y * np.log(p) + (1 - y) * np.log(1 - p))[mask].mean() if mask.any() else math.inf
    return float(defined.mean()) if len(defined) else math.nan, float(loss)


def merit(y: np.ndarray, p: np.ndarray, mask: np.ndarray) -> float:
    """What epochs and settings are chosen by: the mean AUC; minus the log-loss where no label has an AUC."""
    mean_auc, log_loss = auc_and_loss(y, p, mask)
    return -log_loss if math.isnan(mean_auc) else mean_auc


def json_safe(value: Any) -> Any:
    """Results, tables, dictionaries, lists and numbers of NumPy as JSON can hold them: NaN and infinity become None."""
    def plain(v: Any) -> Any:
        return v.to_dict("records") if isinstance(v, pd.DataFrame) else vars(v) if is_dataclass(v) else v.item()

    return json.loads(json.dumps(value, default=plain), parse_constant=lambda _: None)
