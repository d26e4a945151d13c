"""The folder of many trainings: what is finished is kept, one file each, and other data or settings are refused. [ours]

:mod:`medbridge.studies.leaderboard` and :mod:`medbridge.studies.ablate` are loops over such a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medbridge.data import Benchmark
from medbridge.data.tasks import Target
from medbridge.errors import AdapterError, BenchmarkError
from medbridge.experts import Expert
from medbridge.support.processes import barrier, is_main

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["KeptRuns", "films_sentence", "told_data", "training_clock"]


class KeptRuns:
    """Results of one run, by name, in ``OUT/results/``; ``OUT/settings.json`` says what they depend on.

    Args:
        out: the folder; made where it is missing.
        settings: JSON-safe; all that every result depends on.

    Raises:
        BenchmarkError: the folder holds a run with other settings.
    """

    def __init__(self, out: str | Path, settings: Mapping[str, Any]) -> None:
        self.out = Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        path, told = self.out / "settings.json", json.loads(json.dumps(settings))
        if path.exists() and (kept := json.loads(path.read_text(encoding="utf-8"))) != told:
            odd = [key for key in {**told, **kept} if told.get(key) != kept.get(key)]
            raise BenchmarkError(f"{path}: belongs to a run with other data or settings (differs in: {', '.join(odd)}); "
                                 "choose another folder, or delete it")
        barrier()  # all have looked before one of them writes
        self.write("settings.json", json.dumps(told, indent=2))
        barrier()

    def has(self, name: str) -> bool:
        """Whether this result is finished."""
        return self._path(name).exists()

    def _path(self, name: str) -> Path:
        return self.out / "results" / f"{name}.npz"

    def result(self, name: str, compute: Callable[[], tuple[dict[str, np.ndarray], dict[str, Any]]]) -> dict[str, Any]:
        """Arrays and facts of one training in one dictionary: read where they are kept, else computed and kept.

        Args:
            name: of the result; a file name.
            compute: gives the arrays, and facts that JSON can hold.

        Raises:
            AdapterError: the kept file is damaged.
        """
        path = self._path(name)
        if not path.exists():
            arrays, facts = compute()
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_suffix(".part.npz")
            np.savez(temporary, facts=json.dumps(facts), **arrays)
            os.replace(temporary, path)
        try:
            with np.load(path, allow_pickle=False) as saved:
                arrays = {key: saved[key] for key in saved.files}
            return {**json.loads(str(arrays.pop("facts"))), **arrays}
        except Exception as error:  # numpy and zipfile raise half a dozen types for a damaged file
            raise AdapterError(f"{path}: damaged ({error}); delete the file, and it is computed again") from error

    def write(self, name: str, text: str) -> None:
        """A text file of the folder, whole or not at all; written by the main process."""
        if not is_main():
            return
        path = self.out / name
        temporary = path.with_suffix(path.suffix + ".part")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)

    def write_figure(self, name: str, figure: Figure) -> None:
        """A figure of the folder, whole or not at all; written by the main process."""
        if not is_main():
            return
        path = self.out / name
        temporary = path.with_suffix(f".part{path.suffix}")
        figure.savefig(temporary, dpi=150)
        os.replace(temporary, path)


def told_data(benchmark: Benchmark, experts: Sequence[Expert]) -> dict[str, Any]:
    """What a result depends on beside settings, JSON-safe: films with their splits and labels, experts with their weights."""
    films = benchmark.table[[*("image", "split"), *benchmark.labels]].to_csv(index=False)
    return {"experts": [e.name for e in experts], "weights": [e.made_by() for e in experts], "benchmark": benchmark.name,
            "films": hashlib.sha256(films.encode()).hexdigest()}


def films_sentence(benchmark: Benchmark, targets: Sequence[Target] = ()) -> str:
    """Name, and how many films of how many patients train and test; says so where they are synthetic.

    ``targets``: the films that are scored, where they are not the benchmark's own test split.
    """
    targets = [t for t in targets if not t.in_domain]
    scored = ", ".join(f"{t.test.name}: {_films(t.test)}" for t in targets) or _films(benchmark.split("test"))
    labels = sorted({len(t.test.labels) for t in targets} or {len(benchmark.labels)})
    synthetic = "SYNTHETIC films, " if benchmark.synthetic and "synthetic" not in benchmark.name else ""
    over = f"{' or '.join(map(str, labels))} labels" + (" and the benchmarks tested" if len(targets) > 1 else "")
    return f"{benchmark.name}: {synthetic}{len(benchmark.split('train'))} training films, {scored}; mean AUC over {over}"


def _films(test: Benchmark) -> str:
    return f"{len(test)} test films of {test.table['patient_id'].nunique()} patients"


def training_clock() -> float:
    """Seconds on the clock that a training is measured by: wall time beside a GPU, else processor time of this process.

    Processor time is not longer where the machine has other work; it counts every thread.
    """
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()
