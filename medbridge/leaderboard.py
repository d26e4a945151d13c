"""Every method on one benchmark: MedBridge and its baselines, the same films, views, epochs and number of tried settings. [ours]

Each method is trained for each seed, chosen on the validation split and scored once on the test split. What is finished is kept,
one file a method and seed, and the same call goes on from there. The table has the mean over seeds of the macro test AUC, its
interval over patients (the same resamples for all methods), how far the seeds spread, trained parameters, and seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from medbridge.baselines import TRIES, create_baseline, list_baselines
from medbridge.benchmarks import Benchmark
from medbridge.bootstrap import bootstrap_aucs, checked_arrays, defined_mean, group_codes, percentiles
from medbridge.cache import CachedFilms, compute_features
from medbridge.errors import BenchmarkError, ExpertError
from medbridge.evaluate import auc, paired_difference
from medbridge.experts import Expert
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig, MedBridge
from medbridge.predict import predict
from medbridge.train import TrainConfig, fit

__all__ = ["Leaderboard", "run_leaderboard"]

OURS = "medbridge"
_RATES = (1e-3, 3e-4, 3e-3)  # of MedBridge, as many as every baseline may try
_UNSEEDED = ("zero-shot", "linear-probe", "k-nn", "tip-adapter")


@dataclass(frozen=True)
class Leaderboard:
    """Result of :func:`run_leaderboard`.

    Attributes:
        table: one row a method, best first: method, auc, lo, hi, seed_sd (NaN for one seed), seeds, parameters, seconds (mean of
            the seeds, all tried settings and the test split, frozen features excluded; of the last call where a training was
            interrupted), experts; then ours_minus, ours_lo, ours_hi: MedBridge minus the method, paired
            on the same films (NaN without MedBridge).
        left_out: method -> why it could not run.
        caption: what was measured on what, in one sentence.
    """

    table: pd.DataFrame
    left_out: dict[str, str]
    caption: str

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.caption, "", "| method | test AUC [95 % interval] | sd of seeds | MedBridge minus it | trained parameters "
                                   "| seconds | experts |", "|---|---|---|---|---|---|---|"]
        for r in self.table.itertuples():
            spread = "" if np.isnan(r.seed_sd) else f"{r.seed_sd:.3f}"
            ours = "" if np.isnan(r.ours_minus) else f"{r.ours_minus:+.3f} [{r.ours_lo:+.3f}, {r.ours_hi:+.3f}]"
            lines.append(f"| {r.method} | {r.auc:.3f} [{r.lo:.3f}, {r.hi:.3f}] | {spread} | {ours} | {r.parameters:,} "
                         f"| {r.seconds:.0f} | {r.experts} |")
        lines += [f"\n{name} was not run: {why}." for name, why in self.left_out.items()]
        return "\n".join(lines) + "\n"


def run_leaderboard(
    benchmark: Benchmark, experts: Sequence[Expert], out: str | Path, methods: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2), config: TrainConfig | None = None, adapter: AdapterConfig | None = None,
    sampler: FocalSampler | None = None, views: str = "all", tries: int = TRIES, cache: str | Path | None = None,
    workers: int | None = None, progress: bool = True, n_boot: int = 1000,
) -> Leaderboard:
    """Run what is missing, then write ``leaderboard.md``, ``.csv`` and ``.png`` to ``out``.

    Args:
        benchmark: with films in train, val and test.
        experts: K experts, for all methods.
        out: folder of the run.
        methods: names of :func:`medbridge.baselines.list_baselines`, and 'medbridge'; default all.
        seeds: of training; methods without chance run once.
        config: epochs, batch size, patience and schedule, for all methods; its seed and lr are not read.
        adapter, sampler: of MedBridge; the sampler's views are those of all methods.
        views: what the baselines see: 'all' the views that MedBridge sees, or 'whole'.
        tries: settings that each method may try on the validation split.
        cache, workers, progress: as in :func:`medbridge.cache.compute_features`. n_boot: resamples.

    Raises:
        BenchmarkError: an empty split, or an ``out`` that holds a run with other data or settings.
        ValueError: an unknown method.
    """
    config, adapter, sampler, out = config or TrainConfig(), adapter or AdapterConfig(), sampler or FocalSampler(), Path(out)
    methods = list(methods or [*list_baselines(), OURS])
    unknown = [m for m in methods if m not in (*list_baselines(), OURS)]
    if unknown:
        raise ValueError(f"unknown method {', '.join(unknown)}; known: {', '.join([*list_baselines(), OURS])}")
    run = _Run(benchmark, list(experts), out, config, adapter, sampler, views, tries, cache, workers, progress)
    found: dict[str, list[dict[str, Any]]] = {}
    left_out: dict[str, str] = {}
    bar = tqdm([(m, s) for m in methods for s in (seeds[:1] if m in _UNSEEDED else seeds)], "leaderboard", disable=not progress)
    for method, seed in bar:
        bar.set_postfix(method=method, seed=seed)
        if method not in left_out:
            try:
                found.setdefault(method, []).append(run.result(method, seed))
            except ExpertError as error:
                left_out[method] = str(error)
                found.pop(method, None)
    board = _summary(benchmark.split("test"), found, left_out, run.caption(), n_boot)
    _write(out / "leaderboard.md", board.markdown().encode())
    _write(out / "leaderboard.csv", board.table.to_csv(index=False).encode())
    from medbridge.plots import leaderboard_plot  # as in the command line: matplotlib only where something is drawn

    figure = leaderboard_plot(board.table, board.caption)
    figure.savefig(out / "leaderboard.part.png", dpi=150)
    os.replace(out / "leaderboard.part.png", out / "leaderboard.png")
    return board


@dataclass
class _Run:
    """What all methods share, and the files of what is finished."""

    benchmark: Benchmark
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
        self.films: dict[str, CachedFilms] | None = None
        self.out.mkdir(parents=True, exist_ok=True)
        told = {"config": asdict(replace(self.config, seed=0)), "adapter": asdict(self.adapter), "views": self.views,
                "sampler": self.sampler.to_dict(), "tries": self.tries, "experts": [e.name for e in self.experts],
                "weights": [e.fingerprint() for e in self.experts], "benchmark": self.benchmark.name,
                "films": hashlib.sha256(self.benchmark.table[[*("image", "split"), *self.benchmark.labels]]
                                        .to_csv(index=False).encode()).hexdigest()}
        path = self.out / "settings.json"
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(told)):
            raise BenchmarkError(f"{path}: belongs to a run with other data or settings; choose another folder, or delete it")
        _write(path, json.dumps(told, indent=2).encode())

    def caption(self) -> str:
        """What was measured on what."""
        parts = {s: self.benchmark.split(s) for s in ("train", "test")}
        synthetic = "SYNTHETIC films, " if self.benchmark.synthetic and "synthetic" not in self.benchmark.name else ""
        return (f"{self.benchmark.name}: {synthetic}{len(parts['train'])} training films, {len(parts['test'])} test films of "
                f"{parts['test'].table['patient_id'].nunique()} patients; mean AUC over {len(self.benchmark.labels)} labels; "
                f"at most {self.config.epochs} epochs, {self.tries} settings tried, views: {self.views}; "
                f"experts: {', '.join(e.name for e in self.experts)}")

    def result(self, method: str, seed: int) -> dict[str, Any]:
        """Test probabilities and facts of one method and seed, read where they are finished."""
        path = self.out / "results" / f"{method}-seed{seed}.npz"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            began = time.perf_counter() if self.films else self._features()
            p, facts = self._medbridge(seed) if method == OURS else self._baseline(method, seed)
            facts |= {"method": method, "seed": seed, "seconds": time.perf_counter() - began}
            temporary = path.with_suffix(".part.npz")
            np.savez(temporary, p=p, facts=json.dumps(facts))
            os.replace(temporary, path)
        with np.load(path) as saved:
            return {"p": saved["p"], **json.loads(str(saved["facts"]))}

    def _features(self) -> float:
        """Compute what is not cached; the time that the methods themselves take is counted from here."""
        if torch.cuda.is_available():
            for expert in self.experts:
                expert.to("cuda")
        self.films = {
            s: compute_features(self.benchmark.split(s), self.experts, self.depths, self.sampler, s == "train", self.cache,
                                self.workers, self.progress) for s in ("train", "val", "test")}
        return time.perf_counter()

    def _baseline(self, method: str, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        baseline = create_baseline(
            method, self.experts, self.benchmark.labels, views=self.views, tries=self.tries, progress=self.progress,
            config=replace(self.config, seed=seed))
        baseline.fit(self.films["train"], self.films["val"])
        used = getattr(baseline, "used", getattr(baseline, "aligned", range(len(self.experts))))
        names = "none" if method == "densenet121" else ", ".join(self.experts[k].name for k in used)
        return baseline.predict_proba(self.films["test"]), {
            "name": baseline.name, "parameters": baseline.trainable_parameters, "experts": names}

    def _medbridge(self, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        best, kept = -np.inf, None
        for rate in _RATES[: self.tries]:
            model = MedBridge(self.experts, self.benchmark.labels, self.adapter, self.sampler, seed=seed)
            folder = self.out / "medbridge" / f"seed{seed}-rate{rate:g}"
            history = fit(model, self.benchmark, replace(self.config, seed=seed, lr=rate), folder, self.cache, self.workers,
                          self.progress)
            if kept is None or history.best_auc > best:
                best, kept = history.best_auc, model
        p = predict(kept, self.films["test"], self.config.batch_size, progress=self.progress).probabilities
        return p, {"name": "MedBridge", "parameters": sum(w.numel() for w in kept.trainable().values()),
                   "experts": ", ".join(e.name for e in self.experts)}


def _summary(
    test: Benchmark, found: dict[str, list[dict[str, Any]]], left_out: dict[str, str], caption: str, n_boot: int
) -> Leaderboard:
    y, known = test.targets()
    patients = test.table["patient_id"]
    codes, ours = group_codes(patients, len(test)), [r["p"] for r in found.get(OURS, [])]
    rows = []
    for method, results in found.items():
        runs = [r["p"] for r in results]
        targets, _, mask = checked_arrays(y, runs[0], known)
        each = [float(defined_mean(auc(y, p, known))) for p in runs]
        draws = defined_mean(bootstrap_aucs(targets, runs, mask, codes, n_boot, 0).mean(axis=0))
        lo, hi = percentiles(draws[:, None], 0.95)
        row = {"method": results[0]["name"], "auc": np.mean(each), "lo": lo[0], "hi": hi[0],
               "seed_sd": np.std(each, ddof=1) if len(each) > 1 else np.nan, "seeds": len(each),
               "parameters": results[0]["parameters"], "seconds": np.mean([r["seconds"] for r in results]),
               "experts": results[0]["experts"], "ours_minus": np.nan, "ours_lo": np.nan, "ours_hi": np.nan}
        if ours and method != OURS:
            d = paired_difference(y, ours, runs, known, patients, n_boot)
            row |= {"ours_minus": d.diff, "ours_lo": d.lo, "ours_hi": d.hi}
        rows.append(row)
    if not rows:
        raise ExpertError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
    table = pd.DataFrame(rows).sort_values("auc", ascending=False, ignore_index=True)
    return Leaderboard(table, left_out, caption)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_bytes(content)
    os.replace(temporary, path)
