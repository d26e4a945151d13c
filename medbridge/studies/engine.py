"""Fit and score the cells of a study.

An interrupted training goes on from its checkpoint. Several processes make the features together and then share the cells.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from medbridge.adapter import load_adapter, save_adapter
from medbridge.baselines import DenseNet
from medbridge.baselines.method import MedBridgeMethod, Method
from medbridge.data import Benchmark
from medbridge.data.copies import are_copies, pack_prints
from medbridge.data.tasks import Target, without_copies
from medbridge.errors import ExpertError
from medbridge.features.cache import FeatureCache
from medbridge.features.films import FrozenFilms
from medbridge.model import map_reader
from medbridge.studies.cells import Cell, ResultStore
from medbridge.support.processes import gather_each, ranks, share_of_rank
from medbridge.train import History


def run_cells(cells: Sequence[Cell], store: ResultStore, cache: FeatureCache, title: str) -> tuple[int, int, dict[str, str]]:
    """Fit and score what is not finished, each cell in one process; cells that need the same training are one.

    Returns how many cells were made now, how many there are, and method -> why it cannot run.
    """
    by_folder: dict[Path, Cell] = {}
    for cell in cells:
        first = by_folder.setdefault(store.folder(cell), cell)
        by_folder[store.folder(cell)] = replace(first, targets=[*first.targets, *cell.targets])
    missing = [cell for cell in by_folder.values() if store.missing(cell)]
    if ranks()[1] > 1:  # together first: cells that are shared out would each make the features again
        for cell in missing:
            cell_films(cell, store.missing(cell), cache, {})
    left_out: dict[str, str] = {}
    count, kept = len(by_folder), {}
    bar = tqdm(share_of_rank(missing), title, count, initial=count - len(missing), unit="cell", disable=not cache.progress)
    for cell in bar:
        bar.set_postfix_str(f"{cell.method}, {cell.source.name}, seed {cell.seed}")
        if cell.method not in left_out:
            try:
                _run(cell, store, cache, kept)
            except ExpertError as error:
                left_out[cell.method] = str(error)
    return len(missing), count, {name: why for part in gather_each(left_out) for name, why in part.items()}


def unseen(targets: Sequence[Target], source: Benchmark, cache: FeatureCache) -> list[Target]:
    """The targets without copies of the source's train and val films, by :func:`medbridge.data.tasks.without_copies`."""
    learned = source.take((source.table["split"] != "test").to_numpy())
    packed = pack_prints(cache.prints(learned))
    return [without_copies(target, are_copies(cache.prints(target.test), packed), source.name) for target in targets]


def cell_films(
    cell: Cell, targets: Sequence[Target], cache: FeatureCache, kept: dict
) -> tuple[FrozenFilms, FrozenFilms, list[FrozenFilms]]:
    """Frozen features of train, val and each target; the same for every method.

    ``kept``: those of the cell before, not looked up again (a hundred thousand files); this cell's take their place.
    """
    s, used = cell.settings, {}
    reader = map_reader(s.experts, s.adapter, s.sampler)

    def films(source: Benchmark, split: str | None = None) -> FrozenFilms:
        # source is kept too: no other can take its id
        key = id(source), id(cell.source), split, *s.experts, s.sampler, str(reader.depths), s.adapter.map_format
        if key not in kept:
            part = source if split is None else source.split(split)
            kept[key] = source, cache.of(reader, part, training=split == "train")
        used[key] = kept[key]
        return kept[key][1]

    train = films(cell.source, "train")
    reader = replace(reader, bases=train.bases)
    features = train, films(cell.source, "val"), [films(target.test) for target in targets]
    kept.clear()
    kept.update(used)
    return features


def _run(cell: Cell, store: ResultStore, cache: FeatureCache, kept: dict) -> None:
    folder, targets = store.folder(cell), store.missing(cell)
    train, val, films = cell_films(cell, targets, cache, kept)  # all of them are there before the clock starts
    method = cell.create(folder, cache.progress)
    began = _clock()
    # val is scored by what did not learn from it, which only a fit can tell: the model that is saved has seen it
    on_val = [part.keys == val.keys for part in films]
    _fit(method, cell, folder, train, val, again=any(on_val))
    fitted = _clock()
    for target, part, own in zip(targets, films, on_val, strict=True):
        store.keep(cell, target, method.val_scores if own and method.val_scores is not None else method.predict_proba(part))
    used = () if isinstance(method, DenseNet) else getattr(method, "used", range(len(train.depths)))
    if not (folder / "cell.json").exists():  # a new target changes nothing of the training
        store.finish(cell, {
            "source": cell.source.name, "label_fraction": cell.fraction, "seed": cell.seed, "train_films": len(train),
            "train_patients": train.benchmark.table["patient_id"].nunique(), "parameters": method.trainable_parameters,
            "used": [cell.settings.experts[k].name for k in used], "views": float(np.mean(films[-1].fixed)),
            "training_seconds": fitted - began, "scoring_seconds": _clock() - fitted})
    for path in folder.glob("rate*"):  # the adapter is there; checkpoints are no longer needed
        shutil.rmtree(path)
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def _fit(method: Method, cell: Cell, folder: Path, train: FrozenFilms, val: FrozenFilms, again: bool) -> None:
    if not isinstance(method, MedBridgeMethod):
        method.fit(train, val)
    elif (folder / "adapter.json").exists() and not again:
        method.model = load_adapter(folder, cell.settings.experts)
        if torch.cuda.is_available():
            method.model.to("cuda")
    else:
        method.fit(train, val)
        method.model.card = training_card(cell.source, cell.seed, method.history)
        save_adapter(method.model, folder)


def training_card(source: Benchmark, seed: int, history: History) -> dict[str, Any]:
    """What a saved adapter says of its training."""
    return {"trained_on": source.name, "synthetic": source.synthetic, "films": len(source.split("train")), "seed": seed,
            "best_epoch": history.best_epoch + 1, "val_auc": history.best_auc}


def _clock() -> float:
    """Seconds on the clock that a training is measured by: wall time beside a GPU, else processor time of all threads of this
    process, which is not longer where the machine has other work."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()
