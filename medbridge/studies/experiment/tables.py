"""Scores -> tidy tables: one row a task, source, target, label, label fraction, method and seed. [ours]

Labels carry their canonical names (:mod:`medbridge.data.labels`), so that sources with other names for one stand side by side.
Label 'mean' is the mean over the labels that are defined (both classes among the known test films).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medbridge.data import Benchmark
from medbridge.data.tasks import Target
from medbridge.metrics.bootstrap import bootstrap_aucs, checked_arrays, defined_mean, group_codes, percentiles
from medbridge.metrics.evaluate import Evaluation, auc, evaluate, paired_difference
from medbridge.studies.experiment.methods import MEDBRIDGE
from medbridge.studies.experiment_file import Task

__all__ = ["Scored", "averages", "differences", "results", "summary", "write_table"]

_COUNTS = ("seed", "n", "positives", "patients", "train_positives", "labels", "seeds")


@dataclass(frozen=True)
class Scored:
    """One place in the grid with its scores.

    Attributes:
        part: the source with its label budget. key: of the training run; two places with one key share it.
        scores: ``(n, C)`` over the source's labels.
    """

    task: Task
    source: str
    test: str
    fraction: float
    seed: int
    method: str
    target: Target
    part: Benchmark
    key: str
    scores: np.ndarray

    @property
    def shared(self) -> np.ndarray:
        """The scores ``(n, S)`` of the shared labels."""
        return self.scores[:, list(self.target.columns)]

    @property
    def place(self) -> tuple:
        """All but method and seed."""
        return self.task.name, self.source, self.test, self.fraction

    def columns(self) -> dict[str, Any]:
        """The columns that every table begins with."""
        test = self.target.test
        return {"task": self.task.name, "kind": self.task.kind, "train": self.source, "test": self.test,
                "in_domain": self.target.in_domain, "synthetic": self.part.synthetic or test.synthetic,
                "label_fraction": self.fraction, "patients": test.table["patient_id"].nunique()}


def results(scored: Sequence[Scored], n_boot: int) -> pd.DataFrame:
    """AUC of every seed with its bootstrap interval over test patients.

    Beside auc, lo, hi and ap: ``n`` known test films, ``positives`` among them, ``patients`` of the test films; ``train_films``
    and ``train_patients`` of the budget, and ``train_positives`` (0: the label could not be learned); ``labels`` in the mean.
    """
    rows, done = [], {}
    for s in scored:
        # zero-shot is the same at every budget, an in-domain score the same in two tasks: the bootstrap runs once
        once = (s.key, s.test, s.target.columns, s.seed)
        if once not in done:
            y, mask = s.target.test.targets()
            done[once] = evaluate(y, s.shared, mask, s.target.test.table["patient_id"], n_boot=n_boot, seed=s.seed)
        rows += _result_rows(s, done[once])
    return _frame(rows)


def _result_rows(s: Scored, found: Evaluation) -> Iterator[dict[str, Any]]:
    train = s.part.split("train")
    y, _ = train.targets()
    first = {**s.columns(), "method": s.method, "seed": s.seed, "train_films": len(train),
             "train_patients": train.table["patient_id"].nunique()}
    macro = found.macro
    yield {**first, "label": "mean", "auc": macro["auc"], "lo": macro["lo"], "hi": macro["hi"], "ap": macro["ap"],
           "n": len(s.target.test), "positives": None, "train_positives": None, "labels": macro["n_defined"]}
    for row, shared, column in zip(found.per_label.itertuples(), s.target.shared, s.target.columns, strict=True):
        yield {**first, "label": shared.finding, "auc": row.auc, "lo": row.auc_lo, "hi": row.auc_hi, "ap": row.ap, "n": row.n,
               "positives": row.positives, "train_positives": int(y[:, column].sum()), "labels": 1}


def averages(scored: Sequence[Scored], n_boot: int) -> pd.DataFrame:
    """AUC averaged over the seeds; the interval covers the choice of test patients, ``auc_min`` and ``auc_max`` the seeds."""
    rows = []
    for place in _places(scored):
        y, mask = place[0].target.test.targets()
        codes = group_codes(place[0].target.test.table["patient_id"].tolist(), len(y))
        for method in dict.fromkeys(s.method for s in place):
            runs = _runs(place, method)
            points = np.stack([auc(y, p, mask) for p in runs])
            checked = [checked_arrays(y, p, mask) for p in runs]
            clean, known = checked[0][0], checked[0][2]
            draws = bootstrap_aucs(clean, [p for _, p, _ in checked], known, codes, n_boot, place[0].seed).mean(axis=0)
            names = ["mean", *(shared.finding for shared in place[0].target.shared)]
            each = np.column_stack([defined_mean(points), points])
            lo, hi = percentiles(np.column_stack([defined_mean(draws), draws]), 0.95)
            for i, label in enumerate(names):
                rows.append({**place[0].columns(), "method": method, "label": label, "auc": each[:, i].mean(), "lo": lo[i],
                             "hi": hi[i], "auc_min": each[:, i].min(), "auc_max": each[:, i].max(), "seeds": len(runs)})
    return _frame(rows)


def differences(scored: Sequence[Scored], n_boot: int) -> pd.DataFrame:
    """MedBridge minus each baseline: AUC averaged over the seeds, paired on the same resampled test patients.

    ``p_value`` is that of the mean; ``holds_zero``: no difference is shown. Twice ``n_boot`` resamples, as
    :func:`medbridge.metrics.evaluate.paired_difference` takes by itself.
    """
    rows = []
    for place in _places(scored):
        methods = list(dict.fromkeys(s.method for s in place))
        if MEDBRIDGE not in methods:
            continue
        target = place[0].target
        y, mask = target.test.targets()
        for baseline in (m for m in methods if m != MEDBRIDGE):
            d = paired_difference(y, _runs(place, MEDBRIDGE), _runs(place, baseline), mask, target.test.table["patient_id"],
                                  n_boot=2 * n_boot, seed=place[0].seed)
            first = {**place[0].columns(), "method": MEDBRIDGE, "baseline": baseline, "seeds": len({s.seed for s in place})}
            told = [("mean", d.diff, d.lo, d.hi, d.p_value)]
            each = zip(target.shared, d.per_label.itertuples(), strict=True)
            told += [(s.finding, r.diff, r.lo, r.hi, np.nan) for s, r in each]
            rows += [{**first, "label": label, "diff": diff, "lo": lo, "hi": hi, "p_value": p,
                      "holds_zero": not (lo > 0 or hi < 0)} for label, diff, lo, hi, p in told]
    return _frame(rows)


def _places(scored: Sequence[Scored]) -> list[list[Scored]]:
    gathered: dict[tuple, list[Scored]] = {}
    for s in scored:
        gathered.setdefault(s.place, []).append(s)
    return list(gathered.values())


def _runs(place: Sequence[Scored], method: str) -> list[np.ndarray]:
    """The scores of a method, once for each run that differs (zero-shot is one run, whatever the seeds)."""
    return list({s.key: s.shared for s in place if s.method == method}.values())


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    return frame.astype({c: "Int64" for c in _COUNTS if c in frame})


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write ``path.parquet`` and ``path.csv``."""
    for suffix, write in ((".parquet", table.to_parquet), (".csv", table.to_csv)):
        temporary = path.with_suffix(f"{suffix}.part")
        write(temporary, index=False)
        os.replace(temporary, path.with_suffix(suffix))


def summary(averages: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The means as text: one line a task, source, target and label fraction; then MedBridge minus each baseline."""
    place = ["task", "train", "test", "label_fraction"]
    lines = []
    for task, rows in averages[averages["label"] == "mean"].groupby("task", sort=False):
        methods = list(dict.fromkeys(rows["method"]))
        against = differences
        if len(differences):
            against = differences[(differences["label"] == "mean") & (differences["task"] == task)]
        cells = [["train -> test", "labels", *methods, *(f"MedBridge - {b}" for b in dict.fromkeys(against.get("baseline", [])))]]
        for key, group in rows.groupby(place, sort=False):
            aucs = [f"{r.auc:.3f} [{r.lo:.3f}, {r.hi:.3f}]" for r in group.itertuples()]
            here = against[(against[place] == list(key)).all(axis=1)] if len(against) else against
            diffs = [f"{r.diff:+.3f} [{r.lo:+.3f}, {r.hi:+.3f}]{' 0' if r.holds_zero else ''}" for r in here.itertuples()]
            cells.append([f"{key[1]} -> {key[2]}", f"{100 * key[3]:g} %", *aucs, *diffs])
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        synthetic = ", SYNTHETIC films" if rows["synthetic"].any() else ""
        lines += [f"{task}{synthetic}: mean test AUC, {rows['seeds'].max()} seed(s) [95 % bootstrap interval over patients]"]
        lines += ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        lines += [""]
    return "\n".join([*lines, "A difference followed by 0: its interval holds zero, no difference is shown."])
