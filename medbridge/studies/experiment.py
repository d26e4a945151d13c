"""A whole grid of training runs from one YAML file: ``medbridge experiment FILE.yaml``. [ours]

Every cell of the grid is trained once, whatever tasks need it, and kept: the same folder goes on where it stopped. The tables
have one row per task, source, target, label, label fraction, method and seed (or over the seeds). Labels carry their canonical
names (:mod:`medbridge.data.labels`); 'mean' is the mean over those that are defined.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache as memoise
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medbridge.baselines import TRIES
from medbridge.data import Benchmark
from medbridge.data.tasks import Target, make_targets, one_label, same_films, thin_training
from medbridge.errors import ExpertError
from medbridge.experts import Expert, create_expert
from medbridge.features.cache import FeatureCache
from medbridge.metrics.evaluate import Evaluation, evaluate
from medbridge.studies.cells import MEDBRIDGE, Cell, MethodSettings
from medbridge.studies.engine import run_cells
from medbridge.studies.experiment_file import Experiment, Task
from medbridge.studies.store import ResultStore
from medbridge.studies.tables import difference, measure
from medbridge.support.text import text_table

_AVERAGES = ("auc", "lo", "hi", "auc_min", "auc_max", "seeds")
_COUNTS = ("seed", "n", "positives", "patients", "train_positives", "labels", "seeds")


@dataclass
class Results:
    """What an experiment found.

    Attributes:
        results: AUC of every seed with its interval, and ap; ``n`` known test films, ``positives`` among them, ``patients`` of
            the test films; ``train_films`` and ``train_patients`` of the budget, ``train_positives`` (0: the label could not be
            learned); ``labels`` in the mean.
        averages: AUC over the seeds; the interval covers the choice of test patients, ``auc_min`` and ``auc_max`` the seeds.
        differences: MedBridge minus each baseline over the seeds, on the same resampled patients (twice ``n_boot``). ``p_value``
            is that of the mean; ``holds_zero``: no difference is shown.
        trained: how many cells were fitted by this call. cells: how many the experiment has.
        notes: what a reader of the tables has to know.
    """

    results: pd.DataFrame
    averages: pd.DataFrame
    differences: pd.DataFrame
    trained: int
    cells: int
    notes: list[str]


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

    def runs(self, store: ResultStore, target: Target) -> dict[str, list[np.ndarray]]:
        """Method -> its scores, once for each run that differs: zero-shot is one run, whatever the seeds."""
        runs: dict[str, dict[Path, np.ndarray]] = {}
        for cell in self.cells:
            runs.setdefault(cell.method, {})[store.folder(cell)] = store.scores(cell, target)
        return {method: list(scores.values()) for method, scores in runs.items()}


def run_experiment(
    experiment: Experiment, out: str | Path, cache: FeatureCache | None = None, experts: Sequence[Expert] | None = None
) -> Results:
    """Run what is missing of an experiment, then write ``results``, ``averages`` and ``differences``, as Parquet and as CSV.

    Args:
        experiment: what to run. out: folder of the experiment; the same folder goes on where it stopped.
        cache: of the frozen features.
        experts: those that the experiment names; created by name when not given.

    Raises:
        BenchmarkError: a benchmark that cannot be loaded, no shared label, a label that a source lacks; before any training.
        ExpertError: an unknown expert, or a baseline that cannot use any of them.
    """
    built = tuple(experts or (create_expert(name, precision=experiment.precision) for name in experiment.experts))
    loaded = {name: ref.load() for name, ref in experiment.benchmarks.items()}
    notes = [f"{source} -> {test}: {overlap}; the score may be too good" for task in experiment.tasks for source in task.train
             for test in task.tests_of(source)
             if (overlap := same_films(experiment.benchmarks[source], experiment.benchmarks[test]))]
    places = list(_places(experiment, loaded, built))
    cells = [cell for place in places for cell in place.cells]
    for cell in {cell.method: cell for cell in cells}.values():  # a baseline that has no use for these experts says so now
        cell.create()
    store = ResultStore(out)
    trained, count, left_out = run_cells(cells, store, cache or FeatureCache(), experiment.name)
    if left_out:
        raise ExpertError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
    rows = _results(places, store, experiment.n_boot), *_over_seeds(places, store, experiment.n_boot)
    tables = {name: _frame(part) for name, part in zip(("results", "averages", "differences"), rows, strict=True)}
    for name, table in tables.items():
        store.write(f"{name}.parquet", partial(table.to_parquet, index=False))
        store.write(f"{name}.csv", table.to_csv(index=False))
    return Results(**tables, trained=trained, cells=count, notes=list(dict.fromkeys(notes)))


def _places(experiment: Experiment, loaded: dict[str, Benchmark], experts: tuple[Expert, ...]) -> Iterator[_Place]:
    """The whole grid; all that can be wrong with benchmarks and labels is found here."""
    ours = MethodSettings(experts, experiment.adapter, experiment.sampler, experiment.train)
    settings = {method: ours if method == MEDBRIDGE else replace(ours, tries=TRIES) for method in experiment.methods}

    @memoise
    def source_of(name: str, label: str | None) -> Benchmark:
        for split in ("train", "val"):
            loaded[name].split(split)
        return loaded[name] if label is None else one_label(loaded[name], label)

    @memoise
    def target_of(name: str, test: str, label: str | None) -> Target:
        source = source_of(name, label)
        return make_targets(source, [source if test == name else loaded[test]])[0]

    @memoise
    def budget(name: str, label: str | None, fraction: float, seed: int) -> Benchmark:
        return thin_training(source_of(name, label), fraction, seed)

    for task in experiment.tasks:
        for name in task.train:
            targets = {test: target_of(name, test, task.label) for test in task.tests_of(name)}
            for fraction in task.label_fractions:
                parts = {seed: budget(name, task.label, fraction, seed) for seed in experiment.seeds}
                yield _Place(task, name, targets, [
                    Cell(method, part, list(targets.values()), settings[method], seed, fraction)
                    for seed, part in parts.items() for method in experiment.methods])


def _results(places: Sequence[_Place], store: ResultStore, n_boot: int) -> Iterator[dict[str, Any]]:
    done: dict[tuple, Evaluation] = {}
    for place in places:
        for cell, (test, target) in product(place.cells, place.targets.items()):
            # zero-shot is the same at every budget, an in-domain score the same in two tasks: the bootstrap runs once
            once = store.folder(cell), test, target.columns, cell.seed
            if once not in done:
                y, mask = target.test.targets()
                patients = target.test.table["patient_id"]
                done[once] = evaluate(y, store.scores(cell, target), mask, patients, n_boot=n_boot, seed=cell.seed)
            train, macro = cell.source.split("train"), done[once].macro
            first = {**place.columns(test), "method": cell.method, "seed": cell.seed, "train_films": len(train),
                     "train_patients": train.table["patient_id"].nunique()}
            yield {**first, "label": "mean", **{name: macro[name] for name in ("auc", "lo", "hi", "ap")}, "n": len(target.test),
                   "positives": None, "train_positives": None, "labels": macro["n_defined"]}
            for row, shared in zip(done[once].per_label.itertuples(), target.shared, strict=True):
                taught = int(train.table[shared.train].sum())
                yield {**first, "label": shared.finding, "auc": row.auc, "lo": row.auc_lo, "hi": row.auc_hi, "ap": row.ap,
                       "n": row.n, "positives": row.positives, "train_positives": taught, "labels": 1}


def _over_seeds(
    places: Sequence[_Place], store: ResultStore, n_boot: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    averages, differences = [], []
    for place, (test, target) in [(each, item) for each in places for item in each.targets.items()]:
        runs, seed, first = place.runs(store, target), place.cells[0].seed, place.columns(test)
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


def _frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows))
    return frame.astype({c: "Int64" for c in _COUNTS if c in frame})


def summary(averages: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The means as text: one line per task, source, target and label fraction; then MedBridge minus each baseline."""
    place = ["task", "train", "test", "label_fraction"]
    lines = []
    for task, rows in averages[averages["label"] == "mean"].groupby("task", sort=False):
        against = differences
        if len(differences):
            against = differences[(differences["label"] == "mean") & (differences["task"] == task)]
        cells = [["train -> test", "labels", *dict.fromkeys(rows["method"]),
                  *(f"MedBridge - {b}" for b in dict.fromkeys(against.get("baseline", [])))]]
        for key, group in rows.groupby(place, sort=False):
            here = against[(against[place] == list(key)).all(axis=1)] if len(against) else against
            cells.append([f"{key[1]} -> {key[2]}", f"{100 * key[3]:g} %",
                          *(f"{r.auc:.3f} [{r.lo:.3f}, {r.hi:.3f}]" for r in group.itertuples()),
                          *(f"{r.diff:+.3f} [{r.lo:+.3f}, {r.hi:+.3f}]{' 0' * r.holds_zero}" for r in here.itertuples())])
        synthetic = ", SYNTHETIC films" if rows["synthetic"].any() else ""
        lines += [f"{task}{synthetic}: mean test AUC, {rows['seeds'].max()} seed(s) [95 % bootstrap interval over patients]",
                  text_table(cells), ""]
    return "\n".join([*lines, "A difference followed by 0: its interval holds zero, no difference is shown."])
