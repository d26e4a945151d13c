"""Train and score what an experiment asks for; whatever is finished is never done again. [ours]

A *cell* is one method fitted to one set of training films. Its folder ``OUT/cells/KEY`` holds the adapter, the checkpoint while
it trains, and its scores on every target. KEY is made of all that the result depends on: method, settings, seed, the experts'
weights, and the names and labels of the train and val films. So tasks that need the same training run share it (in-domain and
cross-domain), a finished cell is skipped, and a changed setting makes a new one beside the old. Films are told by name: after
changing a film's content under the same name, choose another folder. Several processes make the features together and then share
the cells.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from medbridge.data import Benchmark
from medbridge.data.tasks import Target, make_targets, one_label, same_films, thin_training
from medbridge.errors import AdapterError, BenchmarkError
from medbridge.experts import Expert, create_expert
from medbridge.features.cache import CachedFilms, compute_features
from medbridge.model import MedBridge
from medbridge.predict import predict
from medbridge.studies.adapt import training_card
from medbridge.studies.experiment.methods import BASELINES, MEDBRIDGE
from medbridge.studies.experiment.tables import Scored, averages, differences, results, write_table
from medbridge.studies.experiment_file import Experiment, Task
from medbridge.support.processes import dealt, is_main, ranks
from medbridge.train import TrainConfig, fit

__all__ = ["Results", "run_experiment"]


@dataclass
class Results:
    """What an experiment found.

    Attributes:
        results: one row a task, source, target, label (or 'mean'), label fraction, method and seed.
        averages: the same with the seeds averaged.
        differences: MedBridge minus each baseline, seeds averaged, paired on the same films.
        trained: how many cells were fitted by this call. cells: how many the experiment has.
        notes: what a reader of the tables has to know.
    """

    results: pd.DataFrame
    averages: pd.DataFrame
    differences: pd.DataFrame
    trained: int
    cells: int
    notes: list[str] = field(default_factory=list)


@dataclass
class _Cell:
    """One method on one set of training films, and the targets that it is scored on (by the digest of their films)."""

    method: str
    source: str
    part: Benchmark
    config: TrainConfig
    fraction: float
    folder: Path
    targets: dict[str, Target] = field(default_factory=dict)

    def scores_path(self, digest: str) -> Path:
        return self.folder / f"scores-{digest}.npz"

    def missing(self) -> list[str]:
        return [digest for digest in self.targets if not self.scores_path(digest).exists()]


@dataclass(frozen=True)
class _Row:
    """A place in the grid: its label budget, the cell that fills it, the target and the digest of its films."""

    task: Task
    source: str
    test: str
    fraction: float
    seed: int
    method: str
    part: Benchmark
    cell: _Cell
    digest: str
    target: Target


def run_experiment(
    experiment: Experiment, out: str | Path, experts: Sequence[Expert] | None = None, cache: str | Path | None = None,
    workers: int | None = None, progress: bool = True,
) -> Results:
    """Run what is missing of an experiment and write its tables.

    Writes to ``out``: ``cells/``, and ``results``, ``averages`` and ``differences``, each as Parquet and as CSV.

    Args:
        experiment: what to run. out: folder of the experiment; the same folder goes on where it stopped.
        experts: those that the experiment names; created by name when not given.
        cache, workers, progress: as in :func:`medbridge.features.cache.compute_features`.

    Raises:
        BenchmarkError: a benchmark that cannot be loaded, no shared label, a label that a source lacks; before any training.
        ExpertError: an unknown expert, or a baseline that cannot use any of them.
    """
    out = Path(out)
    built = list(experts or (create_expert(name, precision=experiment.precision) for name in experiment.experts))
    grid = _Grid(experiment, out, built, cache, workers, progress)
    rows = grid.plan()
    cells = list({id(row.cell): row.cell for row in rows}.values())
    todo = [cell for cell in cells if cell.missing()]
    title = f"{experiment.name}: {len(cells) - len(todo)} of {len(cells)} runs are there"
    if ranks()[1] > 1:  # together first: cells that are dealt out would each make the features again
        for cell in todo:
            grid.features(cell)
    bar = tqdm(total=len(todo), desc=title, unit="run", disable=not progress)
    for cell in dealt(todo):
        bar.set_postfix_str(f"{cell.method}, {cell.source}, {100 * cell.fraction:g} %, seed {cell.config.seed}")
        grid.run(cell)
        bar.update()
    bar.close()
    scored = [
        Scored(row.task, row.source, row.test, row.fraction, row.seed, row.method, row.target, row.part, row.cell.folder.name,
               _read_scores(row.cell, row.digest)) for row in rows]
    tables = (make(scored, experiment.n_boot) for make in (results, averages, differences))
    found = Results(*tables, len(todo), len(cells), grid.notes)
    for name in ("results", "averages", "differences") if is_main() else ():
        write_table(getattr(found, name), out / name)
    return found


class _Grid:
    def __init__(
        self, experiment: Experiment, out: Path, experts: list[Expert], cache: str | Path | None, workers: int | None,
        progress: bool,
    ) -> None:
        self.experiment, self.out, self.experts = experiment, out, experts
        self.cache, self.workers, self.progress = cache, workers, progress
        self.prints = [[e.name, e.made_by()] for e in experts]
        self.loaded = {name: ref.load() for name, ref in experiment.benchmarks.items()}
        self.notes: list[str] = []
        self._parts: dict[tuple, tuple[Benchmark, str]] = {}
        self._targets: dict[tuple, tuple[Target, str]] = {}
        self._cells: dict[str, _Cell] = {}

    def plan(self) -> list[_Row]:
        """Every row of the grid; all that can be wrong with benchmarks and labels is found here."""
        rows = []
        for task in self.experiment.tasks:
            for source in task.train:
                whole = self._source(source, task.label)
                tests = {test: self._target(whole, source, test, task.label) for test in task.tests_of(source)}
                for fraction in task.label_fractions:
                    for seed in self.experiment.seeds:
                        part, _ = self._part(source, task.label, fraction, seed)
                        for method in self.experiment.methods:
                            cell = self._cell(source, task.label, fraction, seed, method)
                            for test, (target, digest) in tests.items():
                                cell.targets[digest] = target
                                rows.append(_Row(task, source, test, fraction, seed, method, part, cell, digest, target))
        for method in self.experiment.methods:  # a baseline that has no use for these experts says so now
            if method != MEDBRIDGE:
                BASELINES[method].build(self.experts, rows[0].cell.part.labels, self.experiment.train_config(0))
        return rows

    def _source(self, name: str, label: str | None) -> Benchmark:
        whole = self.loaded[name]
        for split in ("train", "val"):
            whole.split(split)
        return whole if label is None else one_label(whole, label)

    def _target(self, source: Benchmark, name: str, test: str, label: str | None) -> tuple[Target, str]:
        if (name, test, label) not in self._targets:
            refs = self.experiment.benchmarks
            if overlap := same_films(refs[name], refs[test]):
                self._note(f"{name} -> {test}: {overlap}; the score may be too good")
            target = make_targets(source, [source if test == name else self.loaded[test]])[0]
            self._targets[name, test, label] = target, _digest([str(target.test.root), target.test.image_ids()])
        return self._targets[name, test, label]

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _part(self, source: str, label: str | None, fraction: float, seed: int) -> tuple[Benchmark, str]:
        """The source at this budget, and a digest of its train and val films and their labels."""
        at = (source, label, fraction, seed)
        if at not in self._parts:
            part = thin_training(self._source(source, label), fraction, seed)
            seen = part.take(part.table["split"].isin(("train", "val")).to_numpy())
            values = seen.table[list(seen.labels)].to_numpy(dtype=np.float32)
            names = [str(part.root), seen.image_ids(), seen.table["split"].tolist(), np.nan_to_num(values, nan=-1).tolist()]
            self._parts[at] = part, _digest(names)
        return self._parts[at]

    def _cell(self, source: str, label: str | None, fraction: float, seed: int, method: str) -> _Cell:
        part, films = self._part(source, label, fraction, seed)
        config = self.experiment.train_config(seed)
        told = {"method": method, "labels": part.labels, "experts": self.prints, "sampler": self.experiment.sampler.to_dict()}
        if method == MEDBRIDGE or BASELINES[method].learns:
            told["films"] = films
        if method == MEDBRIDGE or BASELINES[method].seeded:
            told["train"] = asdict(config)
        if method == MEDBRIDGE:
            told["adapter"] = asdict(self.experiment.adapter)
        key = _digest(told)
        return self._cells.setdefault(key, _Cell(method, source, part, config, fraction, self.out / "cells" / key))

    def run(self, cell: _Cell) -> None:
        """Fit a cell (or take up its checkpoint, or its finished adapter) and write the scores that are missing."""
        began = time.perf_counter()
        cell.folder.mkdir(parents=True, exist_ok=True)
        model, features = self._model(cell)
        proba = self._fit_medbridge(cell, model) if cell.method == MEDBRIDGE else self._fit_baseline(cell, features)
        for digest in cell.missing():
            part = cell.targets[digest].test
            _write_scores(cell.scores_path(digest), part.image_ids(), proba(features(part)))
        (cell.folder / "checkpoint.pt").unlink(missing_ok=True)  # the adapter is there; the optimiser's state is no longer needed
        train = cell.part.split("train")
        told = {"method": cell.method, "source": cell.part.name, "labels": cell.part.labels, "label_fraction": cell.fraction,
                "seed": cell.config.seed, "train_films": len(train), "train_patients": train.table["patient_id"].nunique(),
                "seconds": time.perf_counter() - began}
        (cell.folder / "cell.json").write_text(json.dumps(told, indent=2), encoding="utf-8")

    def features(self, cell: _Cell) -> None:
        """The frozen features that :meth:`run` needs."""
        _, features = self._model(cell)
        features(cell.part.split("train"), True)
        features(cell.part.split("val"))
        for digest in cell.missing():
            features(cell.targets[digest].test)

    def _model(self, cell: _Cell) -> tuple[MedBridge, Callable[..., CachedFilms]]:
        """An untrained model, and what gives the features that it reads."""
        model = MedBridge(self.experts, cell.part.labels, self.experiment.adapter, self.experiment.sampler, seed=cell.config.seed)
        if torch.cuda.is_available():
            model.to("cuda")

        def features(part: Benchmark, training: bool = False) -> CachedFilms:
            return compute_features(
                part, self.experts, model.depths, model.sampler, training, self.cache, self.workers, self.progress)

        return model, features

    def _fit_medbridge(self, cell: _Cell, model: MedBridge) -> Callable[[CachedFilms], np.ndarray]:
        if (cell.folder / "adapter.json").exists():
            model = MedBridge.load(cell.folder, self.experts)
            if torch.cuda.is_available():
                model.to("cuda")
        else:
            history = fit(model, cell.part, cell.config, cell.folder, self.cache, self.workers, self.progress)
            model.card = training_card(cell.part, cell.config, history)
            model.save(cell.folder)
        return lambda films: predict(model, films, cell.config.batch_size, progress=self.progress).probabilities

    def _fit_baseline(self, cell: _Cell, features: Callable) -> Callable[[CachedFilms], np.ndarray]:
        method = BASELINES[cell.method].build(self.experts, cell.part.labels, cell.config)
        method.fit(features(cell.part.split("train"), True), features(cell.part.split("val")))
        return method.predict_proba


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


def _write_scores(path: Path, images: list[str], scores: np.ndarray) -> None:
    temporary = path.with_suffix(".part")
    with open(temporary, "wb") as file:
        np.savez_compressed(file, images=np.array(images), scores=scores)
    os.replace(temporary, path)


def _read_scores(cell: _Cell, digest: str) -> np.ndarray:
    path, test = cell.scores_path(digest), cell.targets[digest].test
    try:
        with np.load(path, allow_pickle=False) as saved:
            images, scores = saved["images"].tolist(), saved["scores"]
    except Exception as error:  # numpy and zipfile raise half a dozen types for a damaged file
        raise AdapterError(f"{path}: damaged scores ({error}); delete the file, and they are computed again") from error
    if images != test.image_ids() or scores.shape != (len(test), len(cell.part.labels)):
        raise BenchmarkError(f"{path}: scores of other films than the test split of {test.name}; delete the file")
    return scores
