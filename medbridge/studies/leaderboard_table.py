"""The tables of a leaderboard: mean test AUC of every method with its interval, and MedBridge minus it on the same films. [ours]

All methods are measured on the same resampled patients, so that differences are paired. With several test benchmarks the mean
over them is taken, and each is resampled apart. Intervals cover the choice of films, not that of training seeds, whose
spread has a column of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medbridge.data.tasks import Target
from medbridge.errors import ExpertError
from medbridge.metrics.bootstrap import bootstrap_aucs, checked_arrays, defined_mean, group_codes, percentiles
from medbridge.metrics.evaluate import auc
from medbridge.studies.published import published_benchmarks, published_markdown

__all__ = ["Leaderboard", "make_leaderboard"]


@dataclass(frozen=True)
class Leaderboard:
    """Result of :func:`medbridge.studies.leaderboard.run_leaderboard`.

    Attributes:
        table: one row a method, best first: method, auc, lo, hi, seed_sd (NaN for one seed), seeds, parameters, seconds (mean of
            the seeds, all tried settings and the test films, frozen features excluded; of the last call where a training was
            interrupted), experts; then ours_minus, ours_lo, ours_hi: MedBridge minus the method, paired
            on the same films (NaN without MedBridge).
        labels: one row a method, test benchmark and label: auc, lo, hi, ours_minus, ours_lo, ours_hi.
        left_out: method -> why it could not run.
        caption: what was measured on what, in one sentence.
    """

    table: pd.DataFrame
    labels: pd.DataFrame
    left_out: dict[str, str]
    caption: str

    def markdown(self) -> str:
        """Both tables as Markdown, labels as columns; below them, as context, what is published on a test benchmark."""
        lines = [self.caption, "", "| method | test AUC [95 % interval] | sd of seeds | MedBridge minus it | trained parameters "
                                   "| seconds | experts |", "|---|---|---|---|---|---|---|"]
        for r in self.table.itertuples():
            spread = "" if np.isnan(r.seed_sd) else f"{r.seed_sd:.3f}"
            ours = "" if np.isnan(r.ours_minus) else f"{r.ours_minus:+.3f} [{r.ours_lo:+.3f}, {r.ours_hi:+.3f}]"
            lines.append(f"| {r.method} | {r.auc:.3f} [{r.lo:.3f}, {r.hi:.3f}] | {spread} | {ours} | {r.parameters:,} "
                         f"| {r.seconds:.0f} | {r.experts} |")
        names = list(dict.fromkeys(self.labels["label"]))
        lines += ["", f"| method | test | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
        wide = self.labels.pivot(index=["method", "test"], columns="label", values="auc")
        for method in self.table["method"]:
            for test, row in wide.loc[method].iterrows():
                cells = ["" if np.isnan(row[n]) else f"{row[n]:.3f}" for n in names]
                lines.append(f"| {method} | {test} | {' | '.join(cells)} |")
        lines += [f"\n{name} was not run: {why}." for name, why in self.left_out.items()]
        listed = [name.lower() for name in dict.fromkeys(self.labels["test"])]
        return "\n".join([*lines, *(f"\n{published_markdown(n)}" for n in listed if n in published_benchmarks())]) + "\n"


@dataclass(frozen=True)
class _Scored:
    """One method: a point and resamples ``(n_boot,)`` of the mean, and per target those of the labels ``(n_boot, S)``."""

    each: list[float]
    draws: np.ndarray
    label_auc: list[np.ndarray]
    label_draws: list[np.ndarray]


def make_leaderboard(
    targets: Sequence[Target], found: Mapping[str, list[dict[str, Any]]], ours: str, left_out: Mapping[str, str], caption: str,
    n_boot: int = 1000,
) -> Leaderboard:
    """Tables of finished runs.

    Args:
        targets: what was scored.
        found: method -> its runs, one a seed: ``p0``, ``p1`` ... (probabilities ``(n_t, S_t)`` on target t), name, parameters,
            seconds, experts.
        ours: the method that the others are compared with. n_boot: resamples.

    Raises:
        ExpertError: nothing was run; the reasons are named.
    """
    if not found:
        raise ExpertError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
    scored = {method: _score(targets, runs, n_boot) for method, runs in found.items()}
    reference, rows, labels = scored.get(ours), [], []
    for method, runs in found.items():
        s, compared = scored[method], reference if method != ours else None
        rows.append({
            "method": runs[0]["name"], "auc": np.mean(s.each), **_interval(s.draws),
            "seed_sd": np.std(s.each, ddof=1) if len(runs) > 1 else np.nan, "seeds": len(runs),
            "parameters": runs[0]["parameters"], "seconds": np.mean([r["seconds"] for r in runs]), "experts": runs[0]["experts"],
            "ours_minus": np.mean(compared.each) - np.mean(s.each) if compared else np.nan,
            **_interval(compared.draws - s.draws if compared else None, "ours_")})
        for t, target in enumerate(targets):
            for c, label in enumerate(target.test.labels):
                labels.append({
                    "method": runs[0]["name"], "test": target.test.name, "label": label, "auc": s.label_auc[t][c],
                    **_interval(s.label_draws[t][:, c]),
                    "ours_minus": compared.label_auc[t][c] - s.label_auc[t][c] if compared else np.nan,
                    **_interval(compared.label_draws[t][:, c] - s.label_draws[t][:, c] if compared else None, "ours_")})
    table = pd.DataFrame(rows).sort_values("auc", ascending=False, ignore_index=True)
    return Leaderboard(table, pd.DataFrame(labels), dict(left_out), caption)


def _score(targets: Sequence[Target], runs: Sequence[dict[str, Any]], n_boot: int) -> _Scored:
    macros, draws, label_auc, label_draws = [], [], [], []
    for t, target in enumerate(targets):
        y, known = target.test.targets()
        arrays = [run[f"p{t}"] for run in runs]
        y, _, mask = checked_arrays(y, arrays[0], known)
        aucs = np.stack([auc(y, p, mask) for p in arrays])
        codes = group_codes(target.test.table["patient_id"], len(y))
        label_draws.append(bootstrap_aucs(y, arrays, mask, codes, n_boot, seed=t).mean(axis=0))
        label_auc.append(aucs.mean(axis=0))
        macros.append(defined_mean(aucs))
        draws.append(defined_mean(label_draws[-1]))
    return _Scored(np.mean(macros, axis=0).tolist(), np.mean(draws, axis=0), label_auc, label_draws)


def _interval(draws: np.ndarray | None, prefix: str = "") -> dict[str, float]:
    low, high = (np.nan, np.nan) if draws is None else (bound[0] for bound in percentiles(draws[:, None], 0.95))
    return {f"{prefix}lo": low, f"{prefix}hi": high}
