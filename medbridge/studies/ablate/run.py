"""Does each part earn its place? Every variant trained for each seed, and compared with the default on the same films. [ours]

Each variant is trained with the default's films, seeds and epochs; its epoch is chosen on the validation split. Differences are
paired, with intervals over patients, on validation and on test: a choice between variants is made on validation, and the test
column only tells what it was worth. What is finished is kept, one file a variant and seed; the same call goes on from there.
Several processes make the features together and then share variants and seeds.

An interval covers the choice of films, not that of training seeds: ``val_seed_sd`` tells how far the difference moves from seed
to seed. With many variants some interval leaves zero out by chance: ``val_holm`` is the p-value after Holm's correction for all
of them (S. Holm, "A simple sequentially rejective multiple test procedure", 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from medbridge.baselines import LinearProbe
from medbridge.data import Benchmark
from medbridge.errors import ExpertError
from medbridge.features.cache import CachedFilms, compute_features
from medbridge.metrics.bootstrap import defined_mean
from medbridge.metrics.evaluate import auc, paired_difference
from medbridge.model import MedBridge
from medbridge.predict import predict
from medbridge.studies.ablate.variants import BASE, Base, Variant, plan
from medbridge.studies.store import KeptRuns, films_sentence, told_data, training_clock
from medbridge.support.processes import dealt, ranks
from medbridge.train import fit
from medbridge.viz.ablation import cost_plot, forest_plot

__all__ = ["Ablation", "holm", "run_ablation"]


@dataclass(frozen=True)
class Ablation:
    """Result of :func:`run_ablation`.

    Attributes:
        table: one row a variant, the default first: factor, variant; for s of 'val' and 'test': s_auc (mean over labels and
            seeds), s_diff (minus the default), s_lo, s_hi, s_p (two-sided, paired bootstrap), s_holm (corrected for all
            variants), s_seed_sd (standard deviation over seeds of the difference at the same seed); seeds, parameters
            (trained), seconds (mean over seeds: processor time of training, or wall time beside a GPU; frozen features excluded;
            of the last call where a training was interrupted), views (N, mean over test films), val_better (val_lo above zero
            and val_holm below 0.05). Differences of the default are NaN.
        left_out: variant -> why it cannot be built.
        caption: what was measured on what, in one sentence.
    """

    table: pd.DataFrame
    left_out: dict[str, str]
    caption: str

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.caption, "", "| factor | variant | N | validation AUC | minus default [95 % interval] | test AUC "
                                   "| minus default [95 % interval] | trained parameters | seconds |", "|---" * 9 + "|"]
        for r in self.table.to_dict("records"):
            val, test = (f"{r[f'{s}_auc']:.3f} | {_difference(r, s)}" for s in ("val", "test"))
            lines.append(f"| {r['factor']} | {r['variant']} | {r['views']:.3g} | {val} | {test} | {r['parameters']:,} "
                         f"| {r['seconds']:.0f} |")
        lines += ["", f"Choose on validation; the test columns only report. {len(self.table) - 1} comparisons with the default: "
                      "even if nothing made any difference, one interval in twenty would leave zero out. "
                      "†: p < 0.05 after Holm's correction for all of them."]
        lines += [f"\n{name} was not run: {why}." for name, why in self.left_out.items()]
        return "\n".join(lines) + "\n"


def _difference(row: dict[str, Any], split: str) -> str:
    diff, lo, hi, p = (row[f"{split}_{name}"] for name in ("diff", "lo", "hi", "holm"))
    return "" if np.isnan(diff) else f"{diff:+.3f} [{lo:+.3f}, {hi:+.3f}]{' †' if p < 0.05 else ''}"


def run_ablation(
    benchmark: Benchmark, base: Base, out: str | Path, only: Sequence[str] | None = None, seeds: Sequence[int] = (0, 1, 2),
    cache: str | Path | None = None, workers: int | None = None, progress: bool = True, n_boot: int = 2000,
) -> Ablation:
    """Run what is missing, then write ``ablation.md``, ``.csv``, ``.png`` and ``cost.png`` to ``out``.

    Args:
        benchmark: with films in train, val and test.
        base: the default that variants are compared with.
        out: folder of the run.
        only: factors of :data:`medbridge.studies.ablate.FACTORS`; default all. Results of other factors stay in ``out``.
        seeds: of initial weights and of training; linear probes run once.
        cache, workers, progress: as in :func:`medbridge.features.cache.compute_features`. n_boot: resamples.

    Raises:
        BenchmarkError: an empty split, or an ``out`` that holds a run with other data or settings.
        ExpertError, ValueError: the default itself cannot be built; an unknown factor; no seed, or a seed twice.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds={list(seeds)}: give one or more, each once")
    variants, left_out = [], {}
    for variant in plan(base, only):
        try:
            _build(variant, benchmark, 0)
        except (ExpertError, ValueError) as error:
            if variant.factor == BASE:
                raise
            left_out[f"{variant.factor} {variant.name}"] = str(error)
        else:
            variants.append(variant)
    parts = {s: benchmark.split(s) for s in ("train", "val", "test")}
    kept = KeptRuns(out, {
        "config": asdict(replace(base.config, seed=0)), "adapter": asdict(base.adapter), "sampler": base.sampler.to_dict(),
        **told_data(benchmark, base.experts)})
    # seed by seed: a run that is stopped early has whole seeds
    jobs = [_Job(v, s, benchmark, parts, kept.out / "training" / f"{v.key}-seed{s}", cache, workers, progress)
            for s in seeds for v in variants if s == seeds[0] or not v.probe]
    missing = [job for job in jobs if not kept.has(job.folder.name)]
    if ranks()[1] > 1:  # together first: trainings that are dealt out would each make the features again
        for job in {job.variant: job for job in missing}.values():
            job.features()
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc="ablation", disable=not progress)
    for job in dealt(missing):
        bar.set_postfix_str(f"{job.variant.factor} {job.variant.name}, seed {job.seed}")
        kept.result(job.folder.name, job.run)
        # the scores are kept; weights and the optimiser's state are no longer needed
        (job.folder / "checkpoint.pt").unlink(missing_ok=True)
        bar.update()
    bar.close()
    found: dict[Variant, list[dict[str, Any]]] = {v: [] for v in variants}
    for job in jobs:
        found[job.variant].append(kept.result(job.folder.name, job.run))
    caption = (f"{films_sentence(benchmark)} and {_count(len(seeds), 'seed')}; at most {_count(base.config.epochs, 'epoch')}; "
               f"experts: {', '.join(e.name for e in base.experts)}")
    result = Ablation(_table(found, parts, n_boot), left_out, caption)
    kept.write("ablation.md", result.markdown())
    kept.write("ablation.csv", result.table.to_csv(index=False))
    kept.write_figure("ablation.png", forest_plot(result.table, caption))
    kept.write_figure("cost.png", cost_plot(result.table, caption))
    return result


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("s" if n != 1 else "")


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values, float64, in the order given; NaN stays NaN and does not count.

    Whoever calls different only what is below a level makes any false claim at all with at most that probability.
    """
    p = np.asarray(p, dtype=np.float64)
    out, given = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = given[np.argsort(p[given], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return out


def _build(variant: Variant, benchmark: Benchmark, seed: int) -> MedBridge:
    return MedBridge(variant.experts, benchmark.labels, variant.adapter, variant.sampler, seed=seed)


@dataclass(frozen=True)
class _Job:
    """One variant and seed."""

    variant: Variant
    seed: int
    benchmark: Benchmark
    parts: dict[str, Benchmark]
    folder: Path
    cache: str | Path | None
    workers: int | None
    progress: bool

    def run(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Validation and test probabilities ``(n, C)``, and facts."""
        v = self.variant
        model, films = self.features()  # all of them are there before the clock starts
        began = training_clock()
        if v.probe:
            probe = LinearProbe(views=v.probe).fit(films["train"], films["val"])
            seconds, parameters, epochs = training_clock() - began, probe.trainable_parameters, 0
            p = {s: probe.predict_proba(films[s]) for s in ("val", "test")}
        else:
            config = replace(v.config, seed=self.seed)
            history = fit(model, self.benchmark, config, self.folder, self.cache, self.workers, self.progress)
            seconds, parameters = training_clock() - began, sum(w.numel() for w in model.trainable().values())
            epochs = len(history.rows)
            p = {s: predict(model, films[s], config.batch_size, progress=False).probabilities for s in ("val", "test")}
        facts = {"factor": v.factor, "variant": v.name, "seed": self.seed, "seconds": seconds, "parameters": parameters,
                 "epochs": epochs, "views": float(np.mean(films["test"].fixed if v.probe != "whole" else 1))}
        return p, facts

    def features(self) -> tuple[MedBridge, dict[str, CachedFilms]]:
        """The untrained model, and the frozen features of all splits."""
        model = _build(self.variant, self.benchmark, self.seed)
        if torch.cuda.is_available():
            model.to("cuda")
        return model, {s: compute_features(
            part, self.variant.experts, model.depths, model.sampler, s == "train", self.cache, self.workers, self.progress)
            for s, part in self.parts.items()}


def _table(found: dict[Variant, list[dict[str, Any]]], parts: dict[str, Benchmark], n_boot: int) -> pd.DataFrame:
    default = next(iter(found.values()))
    rows = []
    for variant, results in found.items():
        row: dict[str, Any] = {"factor": variant.factor, "variant": variant.name}
        for split in ("val", "test"):
            part = parts[split]
            y, known = part.targets()
            runs, base = ([r[split] for r in rs] for rs in (results, default))
            each, own = ([float(defined_mean(auc(y, p, known))) for p in ps] for ps in (runs, base))
            row[f"{split}_auc"] = np.mean(each)
            numbers = dict.fromkeys(("diff", "lo", "hi", "p", "seed_sd"), np.nan)
            if variant.factor != BASE:
                d = paired_difference(y, runs, base, known, part.table["patient_id"], n_boot)
                spread = np.std(np.subtract(each, own), ddof=1) if len(own) > 1 else np.nan  # a probe's one run against each
                numbers = {"diff": d.diff, "lo": d.lo, "hi": d.hi, "p": d.p_value, "seed_sd": spread}
            row |= {f"{split}_{name}": value for name, value in numbers.items()}
        rows.append(row | {"seeds": len(results), "parameters": results[0]["parameters"],
                           "seconds": np.mean([r["seconds"] for r in results]), "views": results[0]["views"]})
    table = pd.DataFrame(rows)
    for split in ("val", "test"):
        table.insert(table.columns.get_loc(f"{split}_p") + 1, f"{split}_holm", holm(table[f"{split}_p"]))
    return table.assign(val_better=(table["val_lo"] > 0) & (table["val_holm"] < 0.05))
