"""The whole job once: features, baselines, MedBridge, a fair comparison on the test split, and a folder with all of it.

``medbridge adapt`` and ``medbridge quickstart`` are this function. Every method gets the same films and the same frozen
features, chooses its settings on the validation split, and is measured once on the test split of each target
(:mod:`medbridge.data.tasks`).
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
import pandas as pd
import torch

from medbridge.baselines import LinearProbe, ZeroShot
from medbridge.data import Benchmark
from medbridge.data.tasks import Target, make_targets
from medbridge.experts import Expert
from medbridge.features.cache import CachedFilms, compute_features
from medbridge.focal import FocalSampler
from medbridge.metrics.evaluate import Evaluation, PairedDifference, evaluate, json_safe, paired_difference
from medbridge.metrics.scorecard import Scorecard, make_scorecard
from medbridge.metrics.subgroups import known_subgroups, subgroup_table
from medbridge.metrics.thresholds import f1_thresholds
from medbridge.model import AdapterConfig, MedBridge
from medbridge.predict import Prediction, predict
from medbridge.support.processes import is_main
from medbridge.train import History, TrainConfig, fit

__all__ = ["Adapted", "Tested", "adapt", "training_card"]


@dataclass
class Tested:
    """What every method scored on one target, over the S labels that it shares with the source.

    Attributes:
        target: the films and labels. prediction: the model's, on them.
        scores: method -> probabilities ``(n, S)``.
        evaluations: method -> AUC with intervals.
        difference: MedBridge minus the linear probe, paired on the same films.
        scorecards: method -> decisions and probabilities; its thresholds were chosen on the source's validation split.
        subgroups: MedBridge's macro AUC by sex, age band, view and hospital, as far as the benchmark tells them.
    """

    target: Target
    prediction: Prediction
    scores: dict[str, np.ndarray]
    evaluations: dict[str, Evaluation]
    difference: PairedDifference
    scorecards: dict[str, Scorecard]
    subgroups: pd.DataFrame


@dataclass
class Adapted:
    """Result of :func:`adapt`.

    Attributes:
        model: the trained model. history: of its training.
        tested: one a target, in the order that was asked for.
        seconds: part of the job -> wall time.
        test, prediction, scores, evaluations, difference, scorecards, subgroups: those of the first target.
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
    def scorecards(self) -> dict[str, Scorecard]:
        return self.tested[0].scorecards

    @property
    def subgroups(self) -> pd.DataFrame:
        return self.tested[0].subgroups

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
        cache, workers, progress: as in :func:`medbridge.features.cache.compute_features`.
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
    held_out: dict[str, np.ndarray] = {}  # scores of the source's validation films, over all its labels
    for method in methods:
        method.fit(films["train"], films["val"])
        held_out[method.name] = method.predict_proba(films["val"])
        for target, part, found in zip(targets, test_films, scores, strict=True):
            found[method.name] = method.predict_proba(part)[:, target.columns]
    clock.lap("baselines")
    history = fit(model, benchmark, train, out, cache, workers, progress, tensorboard=tensorboard)
    clock.lap("training")
    held_out["MedBridge"] = predict(model, films["val"], train.batch_size, progress=progress).probabilities
    y_val, mask_val = splits["val"].targets()
    thresholds = {name: f1_thresholds(y_val, p, mask_val) for name, p in held_out.items()}
    tested = []
    for target, part, found in zip(targets, test_films, scores, strict=True):
        prediction = predict(model, part, train.batch_size, progress=progress).select(target.columns)
        every = found | {"MedBridge": prediction.probabilities}
        tested.append(_compare(target, prediction, every, thresholds, train.seed))
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


def _compare(
    target: Target, prediction: Prediction, scores: dict[str, np.ndarray], thresholds: dict[str, np.ndarray], seed: int
) -> Tested:
    test = target.test
    y, mask = test.targets()
    patients = test.table["patient_id"]
    evaluations = {name: evaluate(y, p, mask, patients, test.labels, seed=seed) for name, p in scores.items()}
    difference = paired_difference(
        y, scores["MedBridge"], scores["linear probe"], mask, patients, seed=seed, labels=test.labels)
    at = list(target.columns)
    cards = {name: make_scorecard(evaluations[name], y, p, thresholds[name][at], mask) for name, p in scores.items()}
    columns = known_subgroups(test)
    groups = subgroup_table(test, scores["MedBridge"], columns, seed=seed) if columns else pd.DataFrame()
    return Tested(target, prediction, scores, evaluations, difference, cards, groups)


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
        "precision": [e.precision for e in result.model.experts],
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
        "test": json_safe(tested.evaluations),
        "medbridge_minus_linear_probe": json_safe(tested.difference),
        "scorecards": json_safe(tested.scorecards),
        "subgroups": json_safe(tested.subgroups),
        "router_mean_weights": tested.prediction.weights.mean(axis=0).tolist(),
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value, indent=2), encoding="utf-8")
    os.replace(temporary, path)
