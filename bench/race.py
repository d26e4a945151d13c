"""(d) of ``bench/speed.py``: how soon MedBridge, CoOp and LoRA come to the same validation AUC on one expert.

All look at the same five views of the same films, have the package's own settings (the first rate of a grid), and
adapt in full: until 30 epochs or the patience are spent. Films for validation are those of the splits val and test together,
since an AUC of fewer would jump from epoch to epoch. MedBridge's time and CoOp's begin with their frozen features (and
MedBridge's prompts), which are made once, with and without maps; LoRA needs none.

Two methods are compared at the lower of their best AUCs. LoRA alone is stopped early, at its first validation after MedBridge's
whole run would have ended: whatever AUC it came to later, MedBridge came to before, or never does. Going on could only be in
MedBridge's favour.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullLocator
from paired import paired_expert
from rig import FIVE, Row, timed

from medbridge import MedBridge, create_expert, load_benchmark
from medbridge.baselines import create_method
from medbridge.data import Benchmark
from medbridge.experts import Expert
from medbridge.features.cache import FeatureCache
from medbridge.features.films import FrozenFilms
from medbridge.train import Loop, TrainConfig, fit

RIVALS = {"coop": "CoOp", "lora": "LoRA"}
LEARNED = 0.55
"""A best AUC below this is chance on so few validation films: there is nothing to race to."""


@dataclass
class Curve:
    """Validation AUCs of one training, and the wall and processor seconds at which they were known."""

    begun: tuple[float, float]
    points: list[tuple[float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._at = _now()

    def add(self, found: float) -> None:
        """A validation has just ended."""
        self.points.append((*(b + n - a for b, n, a in zip(self.begun, _now(), self._at, strict=True)), found))

    @property
    def best(self) -> float:
        return max(found for *_, found in self.points)

    def until(self, goal: float) -> tuple[float, float]:
        """Wall and processor seconds until the first AUC of ``goal`` or more; infinite where it is not reached."""
        return next(((wall, cpu) for wall, cpu, found in self.points if found >= goal), (math.inf,) * 2)


class _EnoughError(Exception):
    """Longer than MedBridge's whole run."""


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def full_size(args: argparse.Namespace, place: Path) -> Row:
    """(d) on an expert of the size that real ones have."""
    return race(args, "d", paired_expert(args.tower), place)


def tiny(name: str) -> Callable[[argparse.Namespace, Path], Row]:
    """(d) on an embedded expert."""
    return lambda args, place: race(args, f"d-{name}", create_expert(name), place)


def race(args: argparse.Namespace, key: str, expert: Expert, place: Path) -> Row:
    """The row of one expert, and the plot of its curves where ``args.out`` says where."""
    loaded = load_benchmark("phantom", n_films=args.phantom, seed=0)
    benchmark = replace(loaded, table=loaded.table.assign(split=loaded.table["split"].replace("test", "val")))
    parts, runs = [benchmark.split(s) for s in ("train", "val")], []
    FeatureCache(place / "warm-up", progress=False).films(parts[1].take(range(8)), [expert], [[]], FIVE)

    def features(depths: list[list[int]], folder: str) -> list[FrozenFilms]:
        return [FeatureCache(place / folder, progress=False).films(p, [expert], depths, FIVE) for p in parts]

    def prompts_and_maps() -> None:
        with patch.dict(os.environ, MEDBRIDGE_CACHE=str(place)):  # its prompts have to be encoded, too
            depths = MedBridge([expert], benchmark.labels).depths
        features(depths, "maps")

    pooled: list[FrozenFilms] = []
    spent = {"coop": timed(lambda: pooled.extend(features([[]], "pooled"))), "lora": (0.0, 0.0),
             "medbridge": timed(prompts_and_maps)}
    for seed in range(args.seeds):
        config = TrainConfig(epochs=args.epochs, seed=seed)
        curves = {"medbridge": _medbridge(expert, benchmark, config, place / "maps", Curve(spent["medbridge"]))}
        for name in RIVALS:
            limit = curves["medbridge"].points[-1][0] if name == "lora" else math.inf
            curves[name] = _rival(name, expert, pooled, config, Curve(spent[name]), limit)
        runs.append(curves)
        print(key, seed, {n: [(round(w, 1), round(a, 3)) for w, _, a in c.points] for n, c in curves.items()}, flush=True)
    if args.out:
        _plot(runs, expert.name, Path(args.out).parent / f"race-{key}.png")
    return _row(key, expert, args.phantom, runs, spent)


@contextmanager
def _watched(curve: Curve, limit: float = math.inf) -> Iterator[None]:
    """Every validation becomes a point of the curve; the first one after ``limit`` ends the training."""
    plain = Loop._validate

    def validate(self: Loop) -> tuple[float, float]:
        val_auc, val_loss = plain(self)
        curve.add(val_auc)
        if curve.points[-1][0] > limit:
            raise _EnoughError
        return val_auc, val_loss

    with patch.object(Loop, "_validate", validate), suppress(_EnoughError):
        yield


def _medbridge(expert: Expert, benchmark: Benchmark, config: TrainConfig, folder: Path, curve: Curve) -> Curve:
    with _watched(curve):
        model, cache = MedBridge([expert], benchmark.labels, sampler=FIVE, seed=config.seed), FeatureCache(folder, progress=False)
        parts = cache.of(model, benchmark.split("train"), training=True), cache.of(model, benchmark.split("val"))
        fit(model, *parts, config, progress=False)
    return curve


def _rival(name: str, expert: Expert, films: list[FrozenFilms], config: TrainConfig, curve: Curve, limit: float) -> Curve:
    with _watched(curve, limit):
        method = create_method(name, [expert], films[0].benchmark.labels, views="all", config=config, tries=1, progress=False)
        method.fit(*films)
    return curve


def _row(key: str, expert: Expert, films: int, runs: list[dict[str, Curve]], spent: dict[str, tuple[float, float]]) -> Row:
    notes = [f"{films} films; frozen features {spent['medbridge'][0]:.0f} s with maps, {spent['coop'][0]:.0f} s without"]
    walls, cpus = [], []
    for name, called in RIVALS.items():
        each = []
        for curves in runs:
            goal = min(curves["medbridge"].best, curves[name].best)
            each.append((goal, curves["medbridge"].until(goal), curves[name].until(goal)))
        pairs = "; ".join(f"to {goal:.3f}: {mine[0]:.0f} and {theirs[0]:.0f} s" for goal, mine, theirs in each)
        if median(goal for goal, *_ in each) < LEARNED:
            notes.append(f"{called} stayed near chance, no race ({pairs})")
            continue
        walls.append(median(mine[0] / theirs[0] for _, mine, theirs in each))
        cpus.append(median(mine[1] / theirs[1] for _, mine, theirs in each))
        notes.append(f"against {called} {walls[-1]:.2f} ({pairs})")
    worst, processor = max(walls, default=None), max(cpus, default=None)
    return Row(key, f"time to the same validation AUC on {expert.name}, MedBridge / CoOp and / LoRA", "< 1",
               worst is not None and worst < 1, worst, processor, "median of the training seeds; " + "; ".join(notes))


def _plot(runs: list[dict[str, Curve]], title: str, path: Path) -> None:
    figure, axes = plt.subplots(1, len(runs), figsize=(4.2 * len(runs), 3.6), sharey=True, sharex=True, squeeze=False)
    for seed, (axis, curves) in enumerate(zip(axes[0], runs, strict=True)):
        for name, curve in curves.items():
            best = np.maximum.accumulate([found for *_, found in curve.points])
            axis.step([wall for wall, *_ in curve.points], best, where="post", marker=".", label=RIVALS.get(name, "MedBridge"))
        axis.set(title=f"training seed {seed}", xlabel="wall seconds, frozen features included", xscale="log")
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].set_ylabel("best validation mean AUC so far")
    axes[0, -1].legend()
    figure.suptitle(f"{title} (PhantomCXR, synthetic)", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
