"""A whole grid of training runs from one YAML file: ``medbridge experiment FILE.yaml``.

Every cell of the grid is trained once, whatever tasks need it, and kept: the same folder goes on where it stopped. Tables carry
the labels' canonical names (:mod:`medbridge.data.labels`); 'mean' is the mean over those that are defined.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medbridge.baselines import TRIES
from medbridge.data import Benchmark
from medbridge.data.tasks import Target, label_budget, make_targets, one_label
from medbridge.errors import ExpertError
from medbridge.experts import Expert, create_expert
from medbridge.features.cache import FeatureCache
from medbridge.metrics.evaluate import Evaluation, evaluate
from medbridge.studies.cells import MEDBRIDGE, Cell, MethodSettings, ResultStore
from medbridge.studies.engine import run_cells, unseen
from medbridge.studies.experiment_file import Experiment, Task
from medbridge.studies.tables import difference, measure, with_interval
from medbridge.support.text import text_table

_AVERAGES = ("auc", "lo", "hi", "auc_min", "auc_max", "seeds")
_COUNTS = ("seed", "n", "positives", "patients", "train_positives", "labels", "seeds")


@dataclass
class Results:
    """What an experiment found; every table has one row per task, source, target, label fraction, method and label.

    Attributes:
        results: AUC of every seed with its interval, and ap; ``n`` known test films, of ``patients``; ``train_films`` and
            ``train_patients`` of the budget; ``train_positives``, 0 where the label could not be learned; ``labels`` in the mean.
        averages: AUC over the seeds; the interval covers the choice of test patients, ``auc_min`` and ``auc_max`` the seeds.
        differences: MedBridge minus each baseline over the seeds, on the same resampled patients (twice ``n_boot``).
    """

    results: pd.DataFrame
    averages: pd.DataFrame
    differences: pd.DataFrame
    trained: int  # cells that this call fitted
    cells: int
    notes: list[str]  # what a reader of the tables has to know


@dataclass(frozen=True)
class _Place:
    """A task, source and label fraction: the cells that are trained there, and the targets that they are scored on."""

    task: Task
    source: str
    targets: dict[str, Target]
    cells: list[Cell]

    def columns(self, test: str) -> dict[str, Any]:
        """The columns that every table begins with."""
        cell, target = self.cells[0], self.targets[test]
        return {"task": self.task.name, "kind": self.task.kind, "train": self.source, "test": test,
                "in_domain": target.in_domain, "synthetic": cell.source.synthetic or target.test.synthetic,
                "label_fraction": cell.fraction, "patients": target.test.table["patient_id"].nunique()}


def run_experiment(
    experiment: Experiment, out: str | Path, cache: FeatureCache | None = None, experts: Sequence[Expert] | None = None
) -> Results:
    """Run what is missing, then write the tables to ``out``, as Parquet and CSV; ``experts``: those of the file, made already.

    Raises:
        BenchmarkError: a benchmark that cannot be loaded, no shared label, a label that a source lacks; before any training.
        ExpertError: an unknown expert, or a baseline that cannot use any of them.
    """
    built = tuple(experts or (create_expert(name, precision=experiment.precision) for name in experiment.experts))
    loaded = {name: ref.load() for name, ref in experiment.benchmarks.items()}
    notes = ["the baselines see the whole film only, MedBridge all of its views (views: whole)"] * (experiment.views == "whole")
    cache = cache or FeatureCache(features=experiment.features)
    places = list(_places(experiment, loaded, built, cache))
    cells = [cell for place in places for cell in place.cells]
    for cell in {cell.method: cell for cell in cells}.values():  # a baseline that has no use for these experts says so now
        cell.create()
    store = ResultStore(out, features=cache.features)
    trained, count, left_out = run_cells(cells, store, cache, experiment.name)
    if left_out:
        raise ExpertError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
    tables = {}
    rows = _results(places, store, experiment.n_boot), *_over_seeds(places, store, experiment.n_boot)
    for name, part in zip(("results", "averages", "differences"), rows, strict=True):
        table = pd.DataFrame(list(part))
        tables[name] = table = table.astype({c: "Int64" for c in _COUNTS if c in table})
        store.write(f"{name}.parquet", partial(table.to_parquet, index=False))
        store.write(f"{name}.csv", table.to_csv(index=False))
    return Results(**tables, trained=trained, cells=count, notes=notes)


def _places(
    experiment: Experiment, loaded: dict[str, Benchmark], experts: tuple[Expert, ...], cache: FeatureCache
) -> Iterator[_Place]:
    """The whole grid; all that can be wrong with benchmarks and labels is found here."""
    ours = MethodSettings(experts, experiment.adapter, experiment.sampler, experiment.train)
    theirs = replace(ours, views=experiment.views, tries=TRIES)
    settings = {method: ours if method == MEDBRIDGE else theirs for method in experiment.methods}
    for task, name in [(each, name) for each in experiment.tasks for name in each.train]:
        source = loaded[name] if task.label is None else one_label(loaded[name], task.label)
        for split in ("train", "val"):
            source.split(split)
        tests = task.tests_of(name)
        targets = make_targets(source, [source if test == name else loaded[test] for test in tests])
        targets = dict(zip(tests, unseen(targets, source, cache), strict=True))
        for fraction in task.label_fractions or experiment.label_fractions:
            budgets = {seed: label_budget(source, fraction, seed) for seed in experiment.seeds}
            yield _Place(task, name, targets, [
                Cell(method, budget, list(targets.values()), settings[method], seed, fraction)
                for seed, budget in budgets.items() for method in experiment.methods])


def _results(places: Sequence[_Place], store: ResultStore, n_boot: int) -> Iterator[dict[str, Any]]:
    done: dict[tuple, Evaluation] = {}
    for place in places:
        for cell, (test, target) in product(place.cells, place.targets.items()):
            # zero-shot is the same at every budget, an in-domain score the same in two tasks: the bootstrap runs once
            once = store.folder(cell), test, target.columns, cell.seed
            if once not in done:
                (y, mask), patients = target.test.targets(), target.test.table["patient_id"]
                done[once] = evaluate(y, store.scores(cell, target), mask, patients, n_boot=n_boot, seed=cell.seed)
            train, macro = cell.source.split("train"), done[once].macro
            first = {**place.columns(test), "method": cell.method, "seed": cell.seed, "train_films": len(train),
                     "train_patients": train.table["patient_id"].nunique()}
            yield {**first, "label": "mean", **{name: macro[name] for name in ("auc", "lo", "hi", "ap")}, "n": len(target.test),
                   "positives": None, "train_positives": None, "labels": macro["n_defined"]}
            for row, shared in zip(done[once].per_label.itertuples(), target.shared, strict=True):
                yield {**first, "label": shared.finding, "auc": row.auc, "lo": row.auc_lo, "hi": row.auc_hi, "ap": row.ap,
                       "n": row.n, "positives": row.positives, "train_positives": int(train.table[shared.train].sum()),
                       "labels": 1}


def _over_seeds(places: Sequence[_Place], store: ResultStore, n_boot: int) -> tuple[list[dict[str, Any]], ...]:
    averages, differences = [], []
    for place, (test, target) in [(each, item) for each in places for item in each.targets.items()]:
        seed, first = place.cells[0].seed, place.columns(test)
        runs = {name: store.runs([c for c in place.cells if c.method == name], target)
                for name in dict.fromkeys(c.method for c in place.cells)}
        labels = ["mean", *(shared.finding for shared in target.shared)]
        for method, scores in runs.items():
            for label, measured in zip(labels, measure(target, scores, n_boot, seed), strict=True):
                row = measured.row()
                averages.append({**first, "method": method, "label": label, **{name: row[name] for name in _AVERAGES}})
        ours = runs.pop(MEDBRIDGE, None)
        for baseline, scores in runs.items() if ours else ():
            d = difference(target, ours, scores, 2 * n_boot, seed)
            rows = [(d.diff, d.lo, d.hi, d.p_value), *((r.diff, r.lo, r.hi, np.nan) for r in d.per_label.itertuples())]
            for label, (diff, lo, hi, p) in zip(labels, rows, strict=True):
                differences.append({
                    **first, "method": MEDBRIDGE, "baseline": baseline, "seeds": len({cell.seed for cell in place.cells}),
                    "label": label, "diff": diff, "lo": lo, "hi": hi, "p_value": p, "holds_zero": not (lo > 0 or hi < 0)})
    return averages, differences


def summary(averages: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The means as text: one line per task, source, target and label fraction, with MedBridge minus each baseline."""
    means = averages[averages["label"] == "mean"]
    texts = means.assign(column=means["method"], text=[with_interval(*r) for r in means[["auc", "lo", "hi"]].to_numpy()])
    if len(differences):
        d = differences[differences["label"] == "mean"]
        minus = [with_interval(r.diff, r.lo, r.hi, "+") + " 0" * r.holds_zero for r in d.itertuples()]
        texts = pd.concat([texts, d.assign(column=[f"MedBridge - {b}" for b in d["baseline"]], text=minus)])
    lines = []
    for task, rows in texts.groupby("task", sort=False):
        wide = rows.pivot_table("text", ["train", "test", "label_fraction"], "column", "first", sort=False)
        cells = [["train -> test", "labels", *wide]]
        cells += [[f"{train} -> {test}", f"{100 * share:g} %", *row] for (train, test, share), *row in wide.itertuples(name=None)]
        synthetic = ", SYNTHETIC films" if rows["synthetic"].any() else ""
        lines += [f"{task}{synthetic}: mean test AUC, {rows['seeds'].max()} seed(s) [95 % bootstrap interval over patients]",
                  text_table(cells), ""]
    return "\n".join([*lines, "A difference followed by 0: its interval holds zero, no difference is shown."])
