"""Every method on one benchmark: MedBridge and its baselines, the same films, views, epochs and number of tried settings.

Each method is trained for each seed, chosen on the validation split and scored once on the test split: that of the benchmark
itself, or those of others over the labels that they share (cross-domain). The same call goes on where it was stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from medbridge.baselines import TRIES, list_methods, method_class
from medbridge.data import Benchmark
from medbridge.data.tasks import deal_folds, label_budget, make_targets
from medbridge.errors import ExpertError
from medbridge.features.cache import FeatureCache
from medbridge.studies.cells import MEDBRIDGE, Cell, MethodSettings, ResultStore, describe_films
from medbridge.studies.engine import run_cells, unseen
from medbridge.studies.published import published_benchmarks, published_markdown
from medbridge.studies.tables import mean_over, measure, over_folds, with_interval
from medbridge.support.text import fill_template
from medbridge.train import EPOCHS


@dataclass(frozen=True)
class Leaderboard:
    """Result of :func:`run_leaderboard`.

    ``table``, one row per method, best first: method, auc, lo, hi, seed_sd (NaN for one seed), seeds, parameters, seconds (mean
    over the trainings, of all tried settings and the test films, without the frozen features; of the last call where one was
    interrupted), experts; then ours_minus, ours_lo, ours_hi: MedBridge minus the method, paired on the same films (NaN without
    MedBridge). With several test benchmarks: the mean over them. ``labels``: the same per method, test benchmark and label.
    """

    table: pd.DataFrame
    labels: pd.DataFrame
    left_out: dict[str, str]  # method -> why it could not run
    caption: str  # what was measured on what, in one sentence

    def markdown(self) -> str:
        """Both tables as Markdown, labels as columns; below them, as context, what is published on a test benchmark."""
        wide = self.labels.pivot(index=["method", "test"], columns="label", values="auc")
        wide = wide.loc[list(self.table["method"]), list(dict.fromkeys(self.labels["label"]))]
        tests = dict.fromkeys(test.lower() for test in self.labels["test"])
        return fill_template(__file__, "leaderboard.md.jinja", board=self, wide=wide, with_interval=with_interval,
                             published=[published_markdown(name) for name in tests if name in published_benchmarks()])


def run_leaderboard(
    benchmark: Benchmark, settings: MethodSettings, out: str | Path, cache: FeatureCache | None = None,
    methods: Sequence[str] | None = None, seeds: Sequence[int] = (0, 1, 2), tests: Sequence[Benchmark] = (), n_boot: int = 1000,
    fraction: float = 1.0, folds: int | None = None,
) -> Leaderboard:
    """Run what is missing, then write ``leaderboard.md``, ``.csv`` and ``leaderboard_labels.csv`` to ``out``.

    ``settings``: of all methods, with TRIES tries where they have none; the seed and lr of ``config`` are not read. ``methods``:
    names of :func:`medbridge.baselines.list_methods`, default all; those without chance run for one of the ``seeds``. ``tests``:
    benchmarks whose test splits are scored over the labels that they share with the source; none: the source's own. ``folds``:
    cross-validation over all films instead (:func:`medbridge.data.tasks.deal_folds`), each method trained for each fold and seed
    and its out-of-fold AUC averaged (:func:`medbridge.studies.tables.over_folds`). ``fraction``: of the training patients.

    Raises:
        BenchmarkError: an empty split, an ``out`` that holds a run with other data or settings, or as
            :func:`medbridge.data.tasks.make_targets`.
        ValueError: an unknown method; folds and tests. ExpertError: none of the methods could run.
    """
    if folds and tests:
        raise ValueError("folds test the source's own films; leave out the other benchmarks (--test), or the folds")
    settings, cache = replace(settings, tries=settings.tries or TRIES), cache or FeatureCache()
    kinds = [method_class(name) for name in methods or list_methods()]
    sources = [label_budget(part, fraction) for part in (deal_folds(benchmark, folds) if folds else [benchmark])]
    dealt = [unseen(make_targets(source, tests or [source]), source, cache) for source in sources]
    targets = [(i, target) for i, part in enumerate(dealt) for target in part]
    store = ResultStore(out, Cell(MEDBRIDGE, sources[0], dealt[0], settings), cache.features)
    cells = {kind.name: [[Cell(kind.name, source, part, settings, seed, fraction) for seed in seeds]
                         for source, part in zip(sources, dealt, strict=True)] for kind in kinds}
    every = [cell for parts in cells.values() for runs in parts for cell in runs]
    _, _, left_out = run_cells(every, store, cache, "leaderboard")
    cells = {name: runs for name, runs in cells.items() if name not in left_out}
    if not cells:
        raise ExpertError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
    measured = {name: [measure(target, store.runs(parts[i], target), n_boot, seed) for seed, (i, target) in enumerate(targets)]
                for name, parts in cells.items()}
    if folds:
        measured = {name: [over_folds(parts)] for name, parts in measured.items()}
    rows, labels = [], []
    for name, parts in cells.items():
        ours = measured.get(MEDBRIDGE) if name != MEDBRIDGE else None
        mean = mean_over([m[0] for m in measured[name]]).row(ours and mean_over([m[0] for m in ours]))
        facts = [store.facts(cell) for runs in parts for cell in runs]
        seconds = np.mean([f["training_seconds"] + f["scoring_seconds"] for f in facts])
        rows.append({"method": name, **mean, "parameters": facts[0]["parameters"], "seconds": seconds,
                     "experts": ", ".join(facts[0]["used"]) or "none"})
        labels += [{"method": name, "test": target.test.name, "label": label, **measured[name][t][c].row(ours and ours[t][c])}
                   for t, target in enumerate(dealt[0]) for c, label in enumerate(target.test.labels, 1)]
    ours = ["ours_minus", "ours_lo", "ours_hi"]
    of_methods = ["method", "auc", "lo", "hi", "seed_sd", "seeds", "parameters", "seconds", "experts", *ours]
    epochs, films = settings.config.epochs or EPOCHS, describe_films(sources[0], [target for _, target in targets], folds)
    caption = (f"{films}; at most {epochs} epochs, {settings.tries} settings "
               f"tried, views: {settings.views}; experts: {', '.join(e.name for e in settings.experts)}")
    table = pd.DataFrame(rows)[of_methods].sort_values("auc", ascending=False, ignore_index=True)
    board = Leaderboard(table, pd.DataFrame(labels)[["method", "test", "label", "auc", "lo", "hi", *ours]], left_out, caption)
    store.write("leaderboard.md", board.markdown())
    store.write("leaderboard.csv", board.table.to_csv(index=False))
    store.write("leaderboard_labels.csv", board.labels.to_csv(index=False))
    return board
