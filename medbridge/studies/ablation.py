"""Does each part earn its place? One thing at a time around a default, trained for each seed, compared on the same films.

A choice between variants is made on validation; the test columns only tell what it was worth. With many variants some interval
leaves zero out by chance; ``val_holm`` corrects for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medbridge.baselines import LinearProbe
from medbridge.crossview import POOLS
from medbridge.data import Benchmark
from medbridge.data.tasks import Target, make_target
from medbridge.errors import ExpertError
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler, grid_boxes
from medbridge.losses import LOSSES
from medbridge.moe import ROUTERS
from medbridge.qencoder import KINDS
from medbridge.studies.cells import MEDBRIDGE, PROBES, Cell, MethodSettings, ResultStore, describe_films
from medbridge.studies.engine import run_cells, unseen
from medbridge.studies.tables import difference, holm, measure, with_interval
from medbridge.support.text import fill_template
from medbridge.train import EPOCHS

DEFAULT = "default"
Factor = Callable[[MethodSettings], dict[str, dict]]


@dataclass(frozen=True, eq=False)
class Variant:
    """One row of the ablation."""

    factor: str
    name: str  # what is different; unique within its factor
    settings: MethodSettings
    method: str = MEDBRIDGE


def _each(part: str, name: str, text: str, values: Callable[[Any], Sequence[Any]]) -> Factor:
    """Variants that set one field of a part of the settings to each value that is not the default's."""
    def changes(base: MethodSettings) -> dict[str, dict]:
        own = getattr(getattr(base, part), name)
        return {text.format(value): {part: {name: value}} for value in values(own) if value != own}
    return changes


def _side(sampler: FocalSampler) -> int:
    """Windows in a row."""
    return round(len(grid_boxes(1000, 1000, sampler.crop, sampler.overlap)) ** 0.5)


def _overlap(crop: float, side: int) -> float:
    """Overlap with which ``side`` windows of this size stand evenly in a row; below 0 where they would leave gaps."""
    return 1 - (1 - crop) / (crop * (side - 1))


def _views(base: MethodSettings) -> dict[str, dict]:
    """N is changed by the overlap of the sliding windows, whose size stays."""
    if not base.sampler.local:
        return {"with local views": {"sampler": {"local": True}}}
    side, crop = _side(base.sampler), base.sampler.crop
    return {"whole film only (N=1)": {"sampler": {"local": False}}} | {
        f"N={1 + count**2}": {"sampler": {"overlap": max(_overlap(crop, count), 0.0)}}
        for count in (side - 1, side + 1) if count > 1 and _overlap(crop, count) > -1e-9}


def _crop(base: MethodSettings) -> dict[str, dict]:
    """The overlap changes too, so that N stays (on square films)."""
    side = _side(base.sampler)
    if not base.sampler.local or side < 2:
        return {}
    return {f"crop={crop}": {"sampler": {"crop": crop, "overlap": _overlap(crop, side)}}
            for crop in (0.35, 0.5, 0.7) if crop != base.sampler.crop and _overlap(crop, side) > 0}


def _router(base: MethodSettings) -> dict[str, dict]:
    count, own = len(base.experts), base.adapter
    if count == 1:
        return {}
    tops = [k for k in (*range(1, count), None) if k != (own.top_k or None)] if own.router != "uniform" else []
    return {f"router={kind}": {"adapter": {"router": kind}} for kind in ROUTERS if kind != own.router} | {
        f"top_k={str(k).lower()}": {"adapter": {"top_k": k}} for k in tops}


FACTORS: Mapping[str, Factor] = {
    "views": _views,
    "crop": _crop,
    "queries": _each("adapter", "queries", "Q={}", lambda own: (1, 4, 8, 16)),
    "layers": _each("adapter", "query_layers", "T2={}", lambda own: [n for n in (own - 1, own + 1) if n]),
    "depths": lambda base: _each("adapter", "layer_step", "maps {} blocks apart", lambda own: (1, 2, 3))(base)
    if base.adapter.query_layers > 1 else {},
    "kind": lambda base: {
        kind: {"adapter": {"query_kind": kind, "maps": "full"}} for kind in KINDS if kind != base.adapter.query_kind},
    "cross-view": _each("adapter", "cross_view", "attention={}", lambda own: (False, True)),
    "pool": _each("adapter", "pool", "{}", lambda own: POOLS),
    "router": _router,
    "members": _each("adapter", "members", "M={}", lambda own: (1, 5)),
    "readout": _each("adapter", "readout", "readout={}", lambda own: (False, True)),
    "maps": _each("adapter", "maps", "{} maps", lambda own: ("compact", "full")),
    "components": _each("adapter", "components", "r={}", lambda own: (32, 64, 128)),
    "patches": _each("adapter", "patches", "P<={}", lambda own: (16, 64, 256)),
    "bits": _each("adapter", "bits", "{} bits", lambda own: (8, 16)),
    "whiten": _each("adapter", "whiten", "whiten={}", lambda own: (False, True)),
    "loss": _each("config", "loss", "{}", lambda own: tuple(LOSSES)),
    "experts": lambda base: {f"{e.name} alone": {"experts": (e,)} for e in base.experts if len(base.experts) > 1},
    "probe": lambda base: {name: {"views": views} for name, views in PROBES.items()},
}
"""Factor -> its variants, each a name and what it changes in the settings."""


def plan(base: MethodSettings, only: Sequence[str] | None = None) -> list[Variant]:
    """The default, then every variant of the factors ``only`` (default all) of :data:`FACTORS`. ValueError: an unknown factor."""
    if unknown := sorted(set(only or ()) - set(FACTORS)):
        raise ValueError(f"unknown factor {', '.join(unknown)}; known: {', '.join(FACTORS)}")
    variants = [Variant(DEFAULT, DEFAULT, base)]
    for factor in [name for name in FACTORS if not only or name in only]:
        for name, change in FACTORS[factor](base).items():
            settings = replace(base, **{
                part: replace(getattr(base, part), **new) if isinstance(new, dict) else new for part, new in change.items()})
            if len(settings.experts) == 1:  # where a top_k above 1 means nothing
                settings = replace(settings, adapter=replace(settings.adapter, top_k=None))
            variants.append(Variant(factor, name, settings, LinearProbe.name if factor == "probe" else MEDBRIDGE))
    return variants


@dataclass(frozen=True)
class Ablation:
    """Result of :func:`run_ablation`: a row per variant, the default (whose differences are NaN) first.

    Columns: factor, variant; for s of 'val' and 'test': s_auc (mean over labels and seeds), s_diff (minus the default), s_lo,
    s_hi, s_p (two-sided, paired bootstrap), s_holm (corrected for all variants), s_seed_sd (standard deviation over seeds of the
    difference at the same seed); seeds, parameters (trained), seconds (of training, mean over seeds: processor time, wall time
    beside a GPU; of the last call where interrupted), views (N, mean over test films), val_better (val_lo > 0, val_holm < 0.05).
    """

    table: pd.DataFrame
    left_out: dict[str, str]  # variant -> why it cannot be built
    caption: str  # what was measured on what, in one sentence

    def markdown(self) -> str:
        """The table as Markdown, and how to read it."""
        return fill_template(__file__, "ablation.md.jinja", result=self, with_interval=with_interval)


def run_ablation(
    benchmark: Benchmark, base: MethodSettings, out: str | Path, cache: FeatureCache | None = None,
    only: Sequence[str] | None = None, seeds: Sequence[int] = (0, 1, 2), n_boot: int = 2000,
) -> Ablation:
    """Run what is missing, then write ``ablation.md`` and ``ablation.csv`` to ``out``; the same call goes on where it stopped.

    ``only``: factors of :data:`FACTORS`; results of others stay in ``out``. Linear probes run once, whatever the seeds.

    Raises:
        BenchmarkError: an empty split, or an ``out`` that holds a run with other data or settings.
        ExpertError, ValueError: the default itself cannot be built; an unknown factor; no seed, or a seed twice.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds={list(seeds)}: give one or more, each once")
    targets = {split: make_target(benchmark.labels, benchmark, benchmark.name, True, split) for split in ("val", "test")}
    cache = cache or FeatureCache()
    targets["test"], = unseen([targets["test"]], benchmark, cache)
    cells, left_out = {}, {}
    for variant in plan(base, only):
        runs = [Cell(variant.method, benchmark, list(targets.values()), variant.settings, seed) for seed in seeds]
        try:
            runs[0].create()
            cells[variant] = runs
        except (ExpertError, ValueError) as error:
            if variant.factor == DEFAULT:
                raise
            left_out[f"{variant.factor} {variant.name}"] = str(error)
    store = ResultStore(out, Cell(MEDBRIDGE, benchmark, list(targets.values()), base), cache.features)
    # seed by seed: a run that is stopped early has whole seeds
    in_order = [cell for seed in seeds for runs in cells.values() for cell in runs if cell.seed == seed]
    run_cells(in_order, store, cache, "ablation")
    count, epochs = (f"{n} {word}{'s' * (n != 1)}" for n, word in ((len(seeds), "seed"), (base.config.epochs or EPOCHS, "epoch")))
    caption = f"{describe_films(benchmark)} and {count}; at most {epochs}; experts: {', '.join(e.name for e in base.experts)}"
    result = Ablation(_table(cells, targets, store, n_boot), left_out, caption)
    store.write("ablation.md", result.markdown())
    store.write("ablation.csv", result.table.to_csv(index=False))
    return result


def _table(cells: dict[Variant, list[Cell]], targets: dict[str, Target], store: ResultStore, n_boot: int) -> pd.DataFrame:
    default = next(iter(cells.values()))
    references = {split: store.runs(default, target) for split, target in targets.items()}
    rows = []
    for variant, runs in cells.items():
        row: dict[str, Any] = {"factor": variant.factor, "variant": variant.name}
        for split, target in targets.items():
            scores, reference = store.runs(runs, target), references[split]
            each, own = (measure(target, group, n_boot=0, seed=0)[0].runs for group in (scores, reference))
            numbers = (np.nan,) * 5
            if runs is not default:
                d = difference(target, scores, reference, n_boot)
                spread = np.std(np.subtract(each, own), ddof=1) if len(own) > 1 else np.nan  # a probe's one run against each
                numbers = d.diff, d.lo, d.hi, d.p_value, spread
            names = (f"{split}_{name}" for name in ("auc", "diff", "lo", "hi", "p", "seed_sd"))
            row |= dict(zip(names, (np.mean(each), *numbers), strict=True))
        facts = [store.facts(cell) for cell in runs]
        whole = variant.factor == "probe" and variant.settings.views == "whole"
        seconds, views = np.mean([f["training_seconds"] for f in facts]), 1.0 if whole else facts[0]["views"]
        rows.append(row | {"seeds": len(each), "parameters": facts[0]["parameters"], "seconds": seconds, "views": views})
    table = pd.DataFrame(rows)
    for split in targets:
        table.insert(table.columns.get_loc(f"{split}_p") + 1, f"{split}_holm", holm(table[f"{split}_p"]))
    return table.assign(val_better=(table["val_lo"] > 0) & (table["val_holm"] < 0.05))
