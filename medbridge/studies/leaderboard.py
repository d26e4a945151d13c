"""Every method on one benchmark: MedBridge and its baselines, the same films, views, epochs and number of tried settings. [ours]

Each method is trained for each seed, chosen on the validation split and scored once on the test split: that of the benchmark
itself, or those of others over the labels that they share (cross-domain). What is finished is kept, one file a method and
seed, and the same call goes on from there. Several processes make the features together and then share methods and seeds. The
tables are made in :mod:`medbridge.studies.leaderboard_table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from medbridge.baselines import TRIES, create_baseline, list_baselines
from medbridge.data import Benchmark
from medbridge.data.tasks import Target, make_targets
from medbridge.errors import ExpertError
from medbridge.experts import Expert
from medbridge.features.cache import CachedFilms, compute_features
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig, MedBridge
from medbridge.predict import predict
from medbridge.studies.leaderboard_table import Leaderboard, make_leaderboard
from medbridge.studies.store import KeptRuns, films_sentence, told_data, training_clock
from medbridge.support.processes import dealt, gather_all, is_main
from medbridge.train import TrainConfig, fit

__all__ = ["OURS", "run_leaderboard"]

OURS = "medbridge"
_RATES = (1e-3, 3e-4, 3e-3)  # of MedBridge, as many as every baseline may try
_UNSEEDED = ("zero-shot", "linear-probe", "k-nn", "tip-adapter")


def run_leaderboard(
    benchmark: Benchmark, experts: Sequence[Expert], out: str | Path, methods: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2), config: TrainConfig | None = None, adapter: AdapterConfig | None = None,
    sampler: FocalSampler | None = None, views: str = "all", tries: int = TRIES, cache: str | Path | None = None,
    workers: int | None = None, progress: bool = True, n_boot: int = 1000, tests: Sequence[Benchmark] = (),
) -> Leaderboard:
    """Run what is missing, then write ``leaderboard.md``, ``.csv``, ``.png`` and ``leaderboard_labels.csv`` to ``out``.

    Args:
        benchmark: the source, with films in train and val.
        experts: K experts, for all methods.
        out: folder of the run.
        methods: names of :func:`medbridge.baselines.list_baselines`, and 'medbridge'; default all.
        seeds: of training; methods without chance run once.
        config: epochs, batch size, patience and schedule, for all methods; its seed and lr are not read.
        adapter, sampler: of MedBridge; the sampler's views are those of all methods.
        views: what the baselines see: 'all' the views that MedBridge sees, or 'whole'.
        tries: settings that each method may try on the validation split.
        cache, workers, progress: as in :func:`medbridge.features.cache.compute_features`. n_boot: resamples.
        tests: benchmarks whose test splits are scored over the labels that they share with the source; none: the source's own.

    Raises:
        BenchmarkError: an empty split, an ``out`` that holds a run with other data or settings, or as
            :func:`medbridge.data.tasks.make_targets`.
        ValueError: an unknown method.
    """
    config, adapter, sampler, out = config or TrainConfig(), adapter or AdapterConfig(), sampler or FocalSampler(), Path(out)
    methods = list(methods or [*list_baselines(), OURS])
    unknown = [m for m in methods if m not in (*list_baselines(), OURS)]
    if unknown:
        raise ValueError(f"unknown method {', '.join(unknown)}; known: {', '.join([*list_baselines(), OURS])}")
    targets = make_targets(benchmark, tests or [benchmark])
    run = _Run(benchmark, targets, list(experts), out, config, adapter, sampler, views, tries, cache, workers, progress)
    jobs = [(m, s) for m in methods for s in (seeds[:1] if m in _UNSEEDED else seeds)]
    left_out = run.fill(jobs)
    found: dict[str, list[dict[str, Any]]] = {}
    for method, seed in jobs:
        if method not in left_out:
            found.setdefault(method, []).append(run.result(method, seed))
    board = make_leaderboard(targets, found, OURS, left_out, run.caption(), n_boot)
    run.kept.write("leaderboard.md", board.markdown())
    run.kept.write("leaderboard.csv", board.table.to_csv(index=False))
    run.kept.write("leaderboard_labels.csv", board.labels.to_csv(index=False))
    if is_main():
        from medbridge.viz.plots import leaderboard_plot  # as in the command line: matplotlib only where something is drawn

        run.kept.write_figure("leaderboard.png", leaderboard_plot(board.table, board.caption))
    return board


@dataclass
class _Run:
    """What all methods share, and the files of what is finished."""

    benchmark: Benchmark
    targets: list[Target]
    experts: list[Expert]
    out: Path
    config: TrainConfig
    adapter: AdapterConfig
    sampler: FocalSampler
    views: str
    tries: int
    cache: str | Path | None
    workers: int | None
    progress: bool

    def __post_init__(self) -> None:
        self.depths = MedBridge(self.experts, self.benchmark.labels, self.adapter, self.sampler).depths
        self.films: dict[str, CachedFilms] = {}
        self.tests: list[CachedFilms] = []
        self.kept = KeptRuns(self.out, {
            "config": asdict(replace(self.config, seed=0)), "adapter": asdict(self.adapter), "views": self.views,
            "sampler": self.sampler.to_dict(), "tries": self.tries, **told_data(self.benchmark, self.experts),
            "tests": [told_data(t.test, []) for t in self.targets if not t.in_domain]})

    def caption(self) -> str:
        """What was measured on what."""
        return (f"{films_sentence(self.benchmark, self.targets)}; at most {self.config.epochs} epochs, {self.tries} settings "
                f"tried, views: {self.views}; experts: {', '.join(e.name for e in self.experts)}")

    def fill(self, jobs: Sequence[tuple[str, int]]) -> dict[str, str]:
        """Run the methods and seeds that are not finished, each in one process; returns method -> why it cannot run."""
        missing = [(m, s) for m, s in jobs if not self.kept.has(f"{m}-seed{s}")]
        if missing:
            self._features()
        left_out: dict[str, str] = {}
        bar = tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc="leaderboard", disable=not self.progress)
        for method, seed in dealt(missing):
            bar.set_postfix(method=method, seed=seed)
            if method not in left_out:
                try:
                    self.result(method, seed)
                except ExpertError as error:
                    left_out[method] = str(error)
            bar.update()
        bar.close()
        return gather_all(left_out)

    def result(self, method: str, seed: int) -> dict[str, Any]:
        """Test probabilities and facts of one method and seed, read where they are finished."""
        def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
            began = training_clock()
            runs, facts = self._medbridge(seed) if method == OURS else self._baseline(method, seed)
            return ({f"p{t}": p[:, target.columns] for t, (p, target) in enumerate(zip(runs, self.targets, strict=True))},
                    {**facts, "method": method, "seed": seed, "seconds": training_clock() - began})

        return self.kept.result(f"{method}-seed{seed}", compute)

    def _features(self) -> None:
        """Compute what is not cached; the time that the methods themselves take is counted after it."""
        if torch.cuda.is_available():
            for expert in self.experts:
                expert.to("cuda")
        shared = (self.experts, self.depths, self.sampler)
        self.films = {s: compute_features(self.benchmark.split(s), *shared, s == "train", self.cache, self.workers, self.progress)
                      for s in ("train", "val")}
        self.tests = [compute_features(t.test, *shared, False, self.cache, self.workers, self.progress) for t in self.targets]

    def _baseline(self, method: str, seed: int) -> tuple[list[np.ndarray], dict[str, Any]]:
        baseline = create_baseline(
            method, self.experts, self.benchmark.labels, views=self.views, tries=self.tries, progress=self.progress,
            config=replace(self.config, seed=seed))
        baseline.fit(self.films["train"], self.films["val"])
        used = getattr(baseline, "used", getattr(baseline, "aligned", range(len(self.experts))))
        names = "none" if method == "densenet121" else ", ".join(self.experts[k].name for k in used)
        return [baseline.predict_proba(films) for films in self.tests], {
            "name": baseline.name, "parameters": baseline.trainable_parameters, "experts": names}

    def _medbridge(self, seed: int) -> tuple[list[np.ndarray], dict[str, Any]]:
        best, kept = -np.inf, None
        for rate in _RATES[: self.tries]:
            model = MedBridge(self.experts, self.benchmark.labels, self.adapter, self.sampler, seed=seed)
            folder = self.out / "medbridge" / f"seed{seed}-rate{rate:g}"
            history = fit(model, self.benchmark, replace(self.config, seed=seed, lr=rate), folder, self.cache, self.workers,
                          self.progress)
            if kept is None or history.best_auc > best:
                best, kept = history.best_auc, model
        runs = [predict(kept, films, self.config.batch_size, progress=self.progress).probabilities for films in self.tests]
        return runs, {"name": "MedBridge", "parameters": sum(w.numel() for w in kept.trainable().values()),
                   "experts": ", ".join(e.name for e in self.experts)}
