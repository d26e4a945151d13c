"""The whole job once: features, baselines, MedBridge, a fair comparison on the test split, and a folder with all of it.

``medbridge adapt`` and ``medbridge quickstart`` are this function. Every method gets the same films and the same frozen
features, chooses its settings on the validation split, and is measured once on the test split.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medbridge.baselines import LinearProbe, ZeroShot
from medbridge.benchmarks import Benchmark
from medbridge.cache import CachedFilms, compute_features
from medbridge.evaluate import Evaluation, PairedDifference, evaluate, paired_difference
from medbridge.experts import Expert
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig, MedBridge
from medbridge.predict import Prediction, predict
from medbridge.train import History, TrainConfig, fit

__all__ = ["Adapted", "adapt", "comparison_table"]


@dataclass
class Adapted:
    """Result of :func:`adapt`.

    Attributes:
        model: the trained model. history: of its training.
        test: the test films. prediction: the model's, on them.
        scores: method -> probabilities ``(n, C)`` on the test films.
        evaluations: method -> AUC with intervals.
        difference: MedBridge minus the linear probe, paired on the same films.
        seconds: part of the job -> wall time.
    """

    model: MedBridge
    history: History
    test: Benchmark
    prediction: Prediction
    scores: dict[str, np.ndarray]
    evaluations: dict[str, Evaluation]
    difference: PairedDifference
    seconds: dict[str, float]


def adapt(
    benchmark: Benchmark, experts: Sequence[Expert], out: str | Path, config: AdapterConfig | None = None,
    train: TrainConfig | None = None, sampler: FocalSampler | None = None, cache: str | Path | None = None,
    workers: int | None = None, progress: bool = True,
) -> Adapted:
    """Adapt MedBridge to a benchmark and compare it with zero-shot and a linear probe.

    Writes ``adapter.safetensors``, ``adapter.json`` and ``metrics.json`` to ``out``, and a checkpoint each epoch: the same call
    goes on where an interrupted one stopped.

    Args:
        benchmark: with films in train, val and test.
        experts: K frozen experts.
        out: folder of the run.
        config, train, sampler: settings of the model, its training and its views.
        cache, workers, progress: as in :func:`medbridge.cache.compute_features`.

    Raises:
        BenchmarkError: an empty split. ImageError: a film that cannot be read, before any training starts.
    """
    train, out = train or TrainConfig(), Path(out)
    model = MedBridge(experts, benchmark.labels, config, sampler, seed=train.seed)
    if torch.cuda.is_available():
        model.to("cuda")
    splits = {name: benchmark.split(name) for name in ("train", "val", "test")}
    clock = _Clock()
    films = {
        name: compute_features(part, list(model.experts), model.depths, model.sampler, name == "train", cache, workers, progress)
        for name, part in splits.items()
    }
    clock.lap("features")
    methods = [LinearProbe()]
    if any(e.aligned for e in model.experts):
        methods.insert(0, ZeroShot(list(model.experts), benchmark.labels))
    scores = {m.name: m.fit(films["train"], films["val"]).predict_proba(films["test"]) for m in methods}
    clock.lap("baselines")
    history = fit(model, benchmark, train, out, cache, workers, progress)
    clock.lap("training")
    prediction = predict(model, films["test"], train.batch_size, progress=progress)
    scores["MedBridge"] = prediction.probabilities
    evaluations, difference = _compare(splits["test"], scores, train.seed)
    clock.lap("evaluation")
    model.card = {"trained_on": benchmark.name, "synthetic": benchmark.synthetic, "films": len(splits["train"]),
                  "seed": train.seed, "best_epoch": history.best_epoch + 1, "val_auc": history.best_auc}
    model.save(out)
    result = Adapted(
        model, history, splits["test"], prediction, scores, evaluations, difference, clock.laps)
    _write_json(out / "metrics.json", _metrics(result, benchmark, train, films))
    return result


def _compare(
    test: Benchmark, scores: dict[str, np.ndarray], seed: int
) -> tuple[dict[str, Evaluation], PairedDifference]:
    y, mask = test.targets()
    patients = test.table["patient_id"]
    evaluations = {name: evaluate(y, p, mask, patients, test.labels, seed=seed) for name, p in scores.items()}
    difference = paired_difference(
        y, scores["MedBridge"], scores["linear probe"], mask, patients, seed=seed, labels=test.labels)
    return evaluations, difference


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def _metrics(result: Adapted, benchmark: Benchmark, train: TrainConfig, films: dict[str, CachedFilms]) -> dict[str, Any]:
    return {
        "benchmark": benchmark.name,
        "synthetic": benchmark.synthetic,
        "films": {name: len(f) for name, f in films.items()},
        "experts": [e.name for e in result.model.experts],
        "trainable_parameters": sum(p.numel() for p in result.model.trainable().values()),
        "config": asdict(result.model.config),
        "sampler": result.model.sampler.to_dict(),
        "train": asdict(train),
        "test": {name: e.to_dict() for name, e in result.evaluations.items()},
        "medbridge_minus_linear_probe": result.difference.to_dict(),
        "router_mean_weights": result.prediction.weights.mean(axis=0).tolist(),
        "history": asdict(result.history),
        "seconds": result.seconds,
        "machine": {"cores": os.cpu_count(), "cuda": torch.cuda.is_available(), "python": platform.python_version(),
                    "torch": torch.__version__},
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value, indent=2), encoding="utf-8")
    os.replace(temporary, path)


def comparison_table(result: Adapted) -> str:
    """Test AUC of every method, mean and by label, with 95 % bootstrap intervals, and the paired difference below."""
    cells = [["", *result.evaluations]]
    macros = [e.macro for e in result.evaluations.values()]
    cells.append(["mean", *(_cell(m["auc"], m["lo"], m["hi"]) for m in macros)])
    for c, label in enumerate(result.test.labels):
        rows = [e.per_label.iloc[c] for e in result.evaluations.values()]
        cells.append([label, *(_cell(r["auc"], r["auc_lo"], r["auc_hi"]) for r in rows)])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    patients = result.test.table["patient_id"].nunique()
    d = result.difference
    zero = "; the interval holds zero" if d.lo <= 0 <= d.hi else ""
    return "\n".join([
        f"{result.test.name}, test split: {len(result.test)} films of {patients} patients, AUC [95 % bootstrap interval]",
        *lines,
        f"MedBridge minus linear probe, paired on the same films: {d.diff:+.3f} [{d.lo:+.3f}, {d.hi:+.3f}]{zero}",
    ])


def _cell(value: float, low: float, high: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
