"""The folder of a study: what is finished is kept, and never done again. [ours]

``OUT/cells/NAME`` holds the scores of a cell on each target, ``cell.json``, MedBridge's adapter, and its checkpoint while it
trains. NAME ends in a digest of all that the scores depend on: cells that need the same training share it, and a changed setting
makes a new one beside the old. Films go by folder and name: after changing a film's content, choose another folder.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from medbridge.baselines import method_class
from medbridge.data import Benchmark
from medbridge.data.tasks import Target
from medbridge.errors import AdapterError, BenchmarkError
from medbridge.studies.cells import MEDBRIDGE, Cell
from medbridge.support.files import write_atomic
from medbridge.support.processes import barrier, is_main


class ResultStore:
    """Finished cells of a folder.

    Args:
        out: the folder.
        settings: JSON-safe; all that the whole study depends on. None: cells of any settings share the folder.

    Raises:
        BenchmarkError: the folder holds a study with other settings.
    """

    def __init__(self, out: str | Path, settings: Mapping[str, Any] | None = None) -> None:
        self.out = Path(out)
        self._digests: dict[int, tuple[Any, str]] = {}
        if settings is None:
            return
        path, wanted = self.out / "settings.json", json.loads(json.dumps(settings))
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
        """Scores ``(n, S)`` of the labels that the target shares.

        Raises:
            AdapterError: the file is damaged. BenchmarkError: it holds the scores of other films.
        """
        path = self._scores_path(cell, target)
        try:
            with np.load(path, allow_pickle=False) as saved:
                images, scores = saved["images"].tolist(), saved["scores"]
        except Exception as error:  # numpy and zipfile raise half a dozen types for a damaged file
            raise AdapterError(f"{path}: damaged ({error}); delete the file, and it is computed again") from error
        if images != target.test.image_ids() or scores.shape != (len(target.test), len(cell.source.labels)):
            raise BenchmarkError(f"{path}: scores of other films than those of {target.test.name}; delete the file")
        return scores[:, list(target.columns)]

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
            address["films"] = self._once(cell.source, _training_films)
        if kind.seeded:
            address["train"] = asdict(replace(s.config, seed=cell.seed))
        return address | ({"adapter": asdict(s.adapter)} if kind.name == MEDBRIDGE else {})

    def _scores_path(self, cell: Cell, target: Target) -> Path:
        films = self._once(target.test, lambda test: _digest([str(test.root), test.image_ids()]))
        return self.folder(cell) / f"scores-{films}.npz"

    def _once(self, of: Any, digest: Callable[[Any], str]) -> str:
        """Weights and tables are read once; the object is kept with its digest, so that no other can take its id."""
        if id(of) not in self._digests:
            self._digests[id(of)] = of, digest(of)
        return self._digests[id(of)][1]


def _training_films(source: Benchmark) -> str:
    table = source.table[source.table["split"].isin(("train", "val"))]
    labels = np.nan_to_num(table[list(source.labels)].to_numpy(dtype=np.float32), nan=-1)
    return _digest([str(source.root), table["image"].tolist(), table["split"].tolist(), labels.tolist()])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
