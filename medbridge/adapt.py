"""The whole job once: features, baselines, MedBridge, a fair comparison on the test split, and a folder with all of it.

``medbridge adapt`` and ``medbridge quickstart`` are this function. Every method gets the same films and the same frozen
features, chooses its settings on the validation split, and is measured once on the test split of each target
(:mod:`medbridge.tasks`).
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
from medbridge.parallel import is_main
from medbridge.predict import Prediction, predict
from medbridge.tasks import Target, make_targets
from medbridge.train import History, TrainConfig, fit

__all__ = ["Adapted", "Tested", "adapt", "comparison_table", "target_table", "training_card"]


@dataclass
class Tested:
    """What every method scored on one target, over the S labels that it shares with the source.

    Attributes:
        target: the films and labels. prediction: the model's, on them.
        scores: method -> probabilities ``(n, S)``.
        evaluations: method -> AUC with intervals.
        difference: MedBridge minus the linear probe, paired on the same films.
    """

    target: Target
    prediction: Prediction
    scores: dict[str, np.ndarray]
    evaluations: dict[str, Evaluation]
    difference: PairedDifference


@dataclass
class Adapted:
    """Result of :func:`adapt`.

    Attributes:
        model: the trained model. history: of its training.
        tested: one a target, in the order that was asked for.
        seconds: part of the job -> wall time.
        test, prediction, scores, evaluations, difference: those of the first target.
    """

    model: MedBridge
    history: History
    tested: list[Tested]
    seconds: dict[str, float]

    @property
    def test(self) -> Benchmark:
        return self.tested[0].target.test

    @property
    def prediction(self) -> Prediction:
        return self.tested[0].prediction

    @property
    def scores(self) -> dict[str, np.ndarray]:
        return self.tested[0].scores

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        return self.tested[0].evaluations

    @property
    def difference(self) -> PairedDifference:
        return self.tested[0].difference


def adapt(
    benchmark: Benchmark, experts: Sequence[Expert], out: str | Path, config: AdapterConfig | None = None,
    train: TrainConfig | None = None, sampler: FocalSampler | None = None, cache: str | Path | None = None,
    workers: int | None = None, progress: bool = True, tests: Sequence[Benchmark] = (), tensorboard: bool = False,
) -> Adapted:
    """Adapt MedBridge to a benchmark and compare it with zero-shot and a linear probe, on that benchmark or on others.

    Writes ``adapter.safetensors``, ``adapter.json`` and ``metrics.json`` to ``out``, and a checkpoint each epoch: the same call
    goes on where an interrupted one stopped.

    Args:
        benchmark: the source, with films in train and val.
        experts: K frozen experts.
        out: folder of the run.
        config, train, sampler: settings of the model, its training and its views.
        cache, workers, progress: as in :func:`medbridge.cache.compute_features`.
        tests: benchmarks whose test splits are scored over the labels that they share with the source; none: the source's own.
        tensorboard: as in :func:`medbridge.train.fit`.

    Raises:
        BenchmarkError: an empty split, a target without a shared label or with a film that is trained on.
        ImageError: a film that cannot be read. All of them before any training starts.
    """
    train, out = train or TrainConfig(), Path(out)
    targets = make_targets(benchmark, tests or [benchmark])
    model = MedBridge(experts, benchmark.labels, config, sampler, seed=train.seed)
    if torch.cuda.is_available():
        model.to("cuda")
    splits = {name: benchmark.split(name) for name in ("train", "val")}
    clock = _Clock()

    def features(part: Benchmark, training: bool = False) -> CachedFilms:
        return compute_features(
            part, list(model.experts), model.depths, model.sampler, training, cache, workers, progress)

    films = {name: features(part, name == "train") for name, part in splits.items()}
    test_films = [features(target.test) for target in targets]
    clock.lap("features")
    methods = [LinearProbe()]
    if any(e.aligned for e in model.experts):
        methods.insert(0, ZeroShot(list(model.experts), benchmark.labels))
    scores: list[dict[str, np.ndarray]] = [{} for _ in targets]
    for method in methods:
        method.fit(films["train"], films["val"])
        for target, part, found in zip(targets, test_films, scores, strict=True):
            found[method.name] = method.predict_proba(part)[:, target.columns]
    clock.lap("baselines")
    history = fit(model, benchmark, train, out, cache, workers, progress, tensorboard=tensorboard)
    clock.lap("training")
    tested = []
    for target, part, found in zip(targets, test_films, scores, strict=True):
        prediction = predict(model, part, train.batch_size, progress=progress).select(target.columns)
        tested.append(_compare(target, prediction, found | {"MedBridge": prediction.probabilities}, train.seed))
    clock.lap("evaluation")
    model.card = training_card(benchmark, train, history)
    result = Adapted(model, history, tested, clock.laps)
    if is_main():
        model.save(out)
        _write_json(out / "metrics.json", _metrics(result, benchmark, train, {k: len(v) for k, v in splits.items()}))
    return result


def training_card(benchmark: Benchmark, train: TrainConfig, history: History) -> dict[str, Any]:
    """What a saved adapter says of its training."""
    return {"trained_on": benchmark.name, "synthetic": benchmark.synthetic, "films": len(benchmark.split("train")),
            "seed": train.seed, "best_epoch": history.best_epoch + 1, "val_auc": history.best_auc}


def _compare(target: Target, prediction: Prediction, scores: dict[str, np.ndarray], seed: int) -> Tested:
    test = target.test
    y, mask = test.targets()
    patients = test.table["patient_id"]
    evaluations = {name: evaluate(y, p, mask, patients, test.labels, seed=seed) for name, p in scores.items()}
    difference = paired_difference(
        y, scores["MedBridge"], scores["linear probe"], mask, patients, seed=seed, labels=test.labels)
    return Tested(target, prediction, scores, evaluations, difference)


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def _metrics(result: Adapted, benchmark: Benchmark, train: TrainConfig, films: dict[str, int]) -> dict[str, Any]:
    first, *further = (_target_metrics(tested) for tested in result.tested)
    return {
        "benchmark": benchmark.name,
        "synthetic": benchmark.synthetic,
        "films": films | {"test": len(result.test)},
        "experts": [e.name for e in result.model.experts],
        "trainable_parameters": sum(p.numel() for p in result.model.trainable().values()),
        "config": asdict(result.model.config),
        "sampler": result.model.sampler.to_dict(),
        "train": asdict(train),
        **first,
        "further_targets": further,
        "history": asdict(result.history),
        "seconds": result.seconds,
        "machine": {"cores": os.cpu_count(), "cuda": torch.cuda.is_available(), "python": platform.python_version(),
                    "torch": torch.__version__},
    }


def _target_metrics(tested: Tested) -> dict[str, Any]:
    target = tested.target
    return {
        "target": target.test.name,
        "in_domain": target.in_domain,
        "shared_labels": [asdict(s) for s in target.shared],
        "test": {name: e.to_dict() for name, e in tested.evaluations.items()},
        "medbridge_minus_linear_probe": tested.difference.to_dict(),
        "router_mean_weights": tested.prediction.weights.mean(axis=0).tolist(),
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value, indent=2), encoding="utf-8")
    os.replace(temporary, path)


def comparison_table(result: Adapted) -> str:
    """The table of every target, one below the other."""
    return "\n\n".join(target_table(tested, result.model) for tested in result.tested)


def target_table(tested: Tested, model: MedBridge) -> str:
    """Test AUC of every method, mean and by label, with 95 % bootstrap intervals, and the paired difference below.

    Above the table of a cross-domain target: the labels that it shares with the source.
    """
    cells = [["", *tested.evaluations]]
    macros = [e.macro for e in tested.evaluations.values()]
    cells.append(["mean", *(_cell(m["auc"], m["lo"], m["hi"]) for m in macros)])
    test = tested.target.test
    for c, label in enumerate(test.labels):
        rows = [e.per_label.iloc[c] for e in tested.evaluations.values()]
        cells.append([label, *(_cell(r["auc"], r["auc_lo"], r["auc_hi"]) for r in rows)])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    if not tested.target.in_domain:
        lines.insert(0, f"{len(test.labels)} of the source's {len(model.labels)} labels are shared "
                        f"(source = target): {tested.target.mapping()}")
    patients = test.table["patient_id"].nunique()
    d = tested.difference
    zero = "; the interval holds zero" if d.lo <= 0 <= d.hi else ""
    return "\n".join([
        f"{test.name}, test split: {len(test)} films of {patients} patients, AUC [95 % bootstrap interval]",
        *lines,
        f"MedBridge minus linear probe, paired on the same films: {d.diff:+.3f} [{d.lo:+.3f}, {d.hi:+.3f}]{zero}",
    ])


def _cell(value: float, low: float, high: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
