"""What every study is made of: cells, each one method fitted to one set of training films, and the folder that keeps them.

``OUT/cells/NAME`` holds the scores of a cell on each target, ``cell.json`` and MedBridge's adapter. NAME ends in a digest of all
that the scores depend on. Films go by folder and name: after changing a film's content, choose another folder.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medbridge.baselines import method_class
from medbridge.baselines.method import MedBridgeMethod, Method
from medbridge.data import Benchmark
from medbridge.data.tasks import Target
from medbridge.errors import AdapterError, BenchmarkError
from medbridge.experts import Expert
from medbridge.focal import FocalSampler
from medbridge.model import CROSS_FITTED, AdapterConfig
from medbridge.support.files import try_folder, write_atomic
from medbridge.support.processes import barrier, is_main
from medbridge.train import TrainConfig

MEDBRIDGE = MedBridgeMethod.name
PROBE = "linear probe, all views"  # what MedBridge is compared with: it sees the same pictures
PROBES = {PROBE: "all", "linear probe, whole film": "whole"}
"""Linear probes as tables name them -> their views."""


@dataclass(frozen=True)
class MethodSettings:
    """How methods are made."""

    experts: Sequence[Expert]
    adapter: AdapterConfig = CROSS_FITTED
    sampler: FocalSampler = field(default_factory=FocalSampler)
    config: TrainConfig = field(default_factory=TrainConfig)
    views: str = "all"  # what baselines see: 'all' views, as MedBridge, or the 'whole' film
    tries: int | None = None  # settings that a method may try on the validation split; None: the default of its class


@dataclass(frozen=True, eq=False)
class Cell:
    """One method on one set of training films; ``fraction``: of the label budget that ``source`` holds."""

    method: str
    source: Benchmark  # films of train and val over C labels
    targets: Sequence[Target]
    settings: MethodSettings  # the seed of its config is not read
    seed: int = 0
    fraction: float = 1.0

    def create(self, out: str | Path | None = None, progress: bool = True, tensorboard: bool = False) -> Method:
        """The method before ``fit``; MedBridge keeps its checkpoints in ``out``. ExpertError: it can use none of the experts."""
        s, kind = self.settings, method_class(self.method)
        options: dict[str, Any] = {"views": s.views, "config": replace(s.config, seed=self.seed), "progress": progress}
        options |= {} if s.tries is None else {"tries": s.tries}
        if kind is MedBridgeMethod:
            options |= {"adapter": s.adapter, "sampler": s.sampler, "out": out, "tensorboard": tensorboard}
        return kind(s.experts, self.source.labels, **options)


class ResultStore:
    """Finished cells of a folder.

    ``study``: a cell with the settings, films and targets of the whole study; None: cells of any settings share the folder.
    ``features``: of the :class:`medbridge.features.cache.FeatureCache`: streamed films are drawn otherwise in training.
    BenchmarkError: the folder holds a study with others.
    """

    def __init__(self, out: str | Path, study: Cell | None = None, features: str = "cache") -> None:
        self.out, self.features, self._digests = Path(out), features, {}
        try_folder(out)
        if study is None:
            return
        tests = [_films(target.test, target.test.table) for target in study.targets]
        path, wanted = self.out / "settings.json", json.loads(json.dumps({**self._address(study), "tests": tests}))
        if path.exists() and (kept := json.loads(path.read_text(encoding="utf-8"))) != wanted:
            odd = [key for key in {**wanted, **kept} if wanted.get(key) != kept.get(key)]
            raise BenchmarkError(f"{path}: belongs to a run with other data or settings (differs in: {', '.join(odd)}); "
                                 "choose another folder, or delete it")
        barrier()  # all have looked before one of them writes
        self.write("settings.json", json.dumps(wanted, indent=2))
        barrier()

    def write(self, name: str, content: str | Callable[[Path], object]) -> None:
        """A file of the folder, as :func:`medbridge.support.files.write_atomic`; written by the main process."""
        if is_main():
            write_atomic(self.out / name, content)

    def folder(self, cell: Cell) -> Path:
        """That of a cell."""
        kind = method_class(cell.method)
        name = kind.name.replace(" ", "-") + (f"-seed{cell.seed}" if kind.seeded else "")
        return self.out / "cells" / f"{name}-{_digest(self._address(cell))}"

    def missing(self, cell: Cell) -> list[Target]:
        """The targets that are not scored yet."""
        finished = (self.folder(cell) / "cell.json").exists()
        by_path = {self._scores_path(cell, target): target for target in cell.targets}
        return [target for path, target in by_path.items() if not (finished and path.exists())]

    def keep(self, cell: Cell, target: Target, scores: np.ndarray) -> None:
        """Write scores ``(n, C)`` of all labels of the source."""
        images = np.array(target.test.image_ids())
        write_atomic(self._scores_path(cell, target), lambda path: np.savez_compressed(path, images=images, scores=scores))

    def scores(self, cell: Cell, target: Target) -> np.ndarray:
        """Scores ``(n, S)`` of the labels that are shared. AdapterError: a damaged file. BenchmarkError: one of other films."""
        path = self._scores_path(cell, target)
        try:
            with np.load(path, allow_pickle=False) as saved:
                images, scores = saved["images"].tolist(), saved["scores"]
        except Exception as error:  # numpy and zipfile raise half a dozen types for a damaged file
            raise AdapterError(f"{path}: damaged ({error}); delete the file, and it is computed again") from error
        if images != target.test.image_ids() or scores.shape != (len(target.test), len(cell.source.labels)):
            raise BenchmarkError(f"{path}: scores of other films than those of {target.test.name}; delete the file")
        return scores[:, list(target.columns)]

    def runs(self, cells: Sequence[Cell], target: Target) -> list[np.ndarray]:
        """:meth:`scores` of each run that differs: of methods without chance one, whatever the seeds."""
        return list({self.folder(cell): self.scores(cell, target) for cell in cells}.values())

    def finish(self, cell: Cell, facts: Mapping[str, Any]) -> None:
        """Write the facts of a cell, once all its targets are scored."""
        write_atomic(self.folder(cell) / "cell.json", json.dumps({**self._address(cell), **facts}, indent=2))

    def facts(self, cell: Cell) -> dict[str, Any]:
        """What :meth:`finish` wrote."""
        return json.loads((self.folder(cell) / "cell.json").read_text(encoding="utf-8"))

    def _address(self, cell: Cell) -> dict[str, Any]:
        s, kind = cell.settings, method_class(cell.method)
        address = {"method": kind.name, "labels": cell.source.labels, "views": s.views, "tries": s.tries,
                   "sampler": asdict(s.sampler), "experts": [[e.name, self._once(e, lambda e: e.made_by())] for e in s.experts]}
        if kind.learns:
            address["films"] = self._once(cell.source, lambda b: _films(b, b.table[b.table["split"].isin(("train", "val"))]))
        if kind.seeded:
            address["train"] = asdict(replace(s.config, seed=cell.seed))
        if kind.name == MEDBRIDGE:
            address |= {"adapter": asdict(s.adapter)} | ({} if self.features == "cache" else {"features": self.features})
        return address

    def _scores_path(self, cell: Cell, target: Target) -> Path:
        films = self._once(target.test, lambda test: _digest([str(test.root), test.image_ids()]))
        return self.folder(cell) / f"scores-{films}.npz"

    def _once(self, of: Any, digest: Callable[[Any], str]) -> str:
        """Weights and tables are read once; the object is kept with its digest, so that no other can take its id."""
        if id(of) not in self._digests:
            self._digests[id(of)] = of, digest(of)
        return self._digests[id(of)][1]


def _films(benchmark: Benchmark, table: pd.DataFrame) -> str:
    labels = np.nan_to_num(table[list(benchmark.labels)].to_numpy(dtype=np.float32), nan=-1)
    return _digest([str(benchmark.root), table["image"].tolist(), table["split"].tolist(), labels.tolist()])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def describe_films(benchmark: Benchmark, targets: Sequence[Target] = (), folds: int | None = None) -> str:
    """Name, and how many films of how many patients train and test (the benchmark's own, or ``targets``); says 'synthetic'."""
    synthetic = "SYNTHETIC films, " if benchmark.synthetic and "synthetic" not in benchmark.name else ""
    if folds:
        tested = pd.concat([target.test.table for target in targets])
        patients, labels = tested["patient_id"].nunique(), len(benchmark.labels)
        return (f"{benchmark.name}: {synthetic}{len(tested)} test films of {patients} patients in {folds} folds, each scored by "
                f"models of {folds - 2} others; mean AUC over {labels} labels and the folds")
    others = [t.test for t in targets if not t.in_domain]
    tests = others or [benchmark.split("test")]
    films = ", ".join(f"{test.name}: " * bool(others) + f"{len(test)} test films of {test.table['patient_id'].nunique()} patients"
                      for test in tests)
    labels = " or ".join(str(count) for count in sorted({len(test.labels) for test in tests}))
    return (f"{benchmark.name}: {synthetic}{len(benchmark.split('train'))} training films, {films}; mean AUC over {labels} labels"
            + " and the benchmarks tested" * (len(others) > 1))
