"""The whole job once: features, baselines, MedBridge, a fair comparison on the test split, and a folder with all of it.

Every method gets the same films, chooses its settings on the validation split, and is measured once on the test split of each
target (:mod:`medbridge.data.tasks`). ``medbridge adapt`` and ``medbridge quickstart`` are this function.
"""

import json
import os
import platform
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medbridge.adapter import save_adapter
from medbridge.baselines import LinearProbe, ZeroShot
from medbridge.data import Benchmark
from medbridge.data.tasks import Target, make_targets
from medbridge.errors import BenchmarkWarning
from medbridge.features.cache import FeatureCache
from medbridge.metrics.evaluate import Evaluation, PairedDifference, auc, evaluate, json_safe
from medbridge.metrics.subgroups import known_subgroups, subgroup_table
from medbridge.metrics.thresholds import Scorecard, f1_thresholds, make_scorecard
from medbridge.model import MedBridge
from medbridge.predict import Prediction, predict
from medbridge.studies.cells import MEDBRIDGE, PROBE, PROBES, Cell, MethodSettings
from medbridge.studies.engine import cell_films, training_card, unseen
from medbridge.studies.tables import difference, with_interval
from medbridge.support.files import try_folder, write_atomic
from medbridge.support.processes import is_main
from medbridge.support.text import fill_template, text_table
from medbridge.train import History


@dataclass
class Tested:
    """What every method scored on one target, over the S labels that it shares with the source."""

    target: Target
    prediction: Prediction  # the model's
    scores: dict[str, np.ndarray]  # method -> probabilities (n, S)
    evaluations: dict[str, Evaluation]  # method -> AUC with intervals
    difference: PairedDifference  # MedBridge minus the linear probe on the same views, paired on the same films
    scorecards: dict[str, Scorecard]  # method -> decisions at thresholds chosen on the source's validation split, probabilities
    subgroups: pd.DataFrame  # MedBridge's macro AUC by sex, age band, view and hospital, as far as the benchmark tells them


@dataclass
class Adapted:
    """Result of :func:`adapt`."""

    model: MedBridge
    history: History
    tested: list[Tested]  # one per target, in the order that was asked for
    seconds: dict[str, float]  # part of the job -> wall time


def adapt(
    benchmark: Benchmark, settings: MethodSettings, out: str | Path, cache: FeatureCache | None = None,
    tests: Sequence[Benchmark] = (), tensorboard: bool = False,
) -> Adapted:
    """Adapt MedBridge to a benchmark and compare it with zero-shot and linear probes, on that benchmark or on others.

    Writes ``adapter.safetensors``, ``adapter.json`` and ``metrics.json`` to ``out``, and a checkpoint each epoch: the same call
    goes on where an interrupted one stopped. ``tests``: benchmarks whose test splits are scored over the labels that they share
    with the source; none: the source's own. Films that are copies of train or val films are left out, with a BenchmarkWarning.

    Raises:
        BenchmarkError: an empty split, a target without a shared label, or with no film that is not trained on.
        ImageError: a film that cannot be read. OSError: nothing can be written to ``out`` or the cache, which are tried before
            the first feature is computed. All of them before any training starts.
    """
    cache, seed, clock = cache or FeatureCache(), settings.config.seed, [time.perf_counter()]
    targets = make_targets(benchmark, tests or [benchmark])
    try_folder(out)
    targets = unseen(targets, benchmark, cache)
    ours = Cell(MEDBRIDGE, benchmark, targets, settings, seed)
    baselines = {ZeroShot.name: replace(ours, method=ZeroShot.name)} if any(e.aligned for e in settings.experts) else {}
    for name, views in reversed(PROBES.items()):
        baselines[name] = replace(ours, method=LinearProbe.name, settings=replace(settings, views=views))
    train, val, films = cell_films(ours, targets, cache, {})
    clock.append(time.perf_counter())
    methods = {name: cell.create(progress=cache.progress).fit(train, val) for name, cell in baselines.items()}
    clock.append(time.perf_counter())
    ours = ours.create(out, cache.progress, tensorboard).fit(train, val)
    clock.append(time.perf_counter())
    y, known = val.benchmark.targets()
    if np.isnan(auc(y, y, known)).all():
        warnings.warn(f"{benchmark.name}: no label has both classes in the validation split, so the log-loss, not an AUC, "
                      f"chose epochs and settings; add films of the missing class, or draw the splits anew", BenchmarkWarning,
                      stacklevel=2)
    thresholds = {name: f1_thresholds(y, m.predict_proba(val) if m.val_scores is None else m.val_scores, known)
                  for name, m in (methods | {MEDBRIDGE: ours}).items()}
    tested = []
    for target, part in zip(targets, films, strict=True):
        prediction = predict(ours.model, part, settings.config.batch_size, cache.progress).select(target.columns)
        scores = {name: method.predict_proba(part)[:, target.columns] for name, method in methods.items()}
        tested.append(_compare(target, prediction, scores | {MEDBRIDGE: prediction.probabilities}, thresholds, seed))
    clock.append(time.perf_counter())
    seconds = dict(zip(("features", "baselines", "training", "evaluation"), np.diff(clock).tolist(), strict=True))
    ours.model.card = training_card(benchmark, seed, ours.history)
    result = Adapted(ours.model, ours.history, tested, seconds)
    if is_main():
        save_adapter(result.model, out)
        write_atomic(Path(out) / "metrics.json", json.dumps(_metrics(result, benchmark, settings, cache), indent=2))
    return result


def _compare(
    target: Target, prediction: Prediction, scores: dict[str, np.ndarray], thresholds: dict[str, np.ndarray], seed: int
) -> Tested:
    test, at = target.test, list(target.columns)
    y, mask = test.targets()
    patients, columns = test.table["patient_id"], known_subgroups(test)
    evaluations = {name: evaluate(y, p, mask, patients, test.labels, seed=seed) for name, p in scores.items()}
    minus_probe = difference(target, [scores[MEDBRIDGE]], [scores[PROBE]], seed=seed)
    cards = {name: make_scorecard(evaluations[name], y, p, thresholds[name][at], mask) for name, p in scores.items()}
    groups = subgroup_table(test, scores[MEDBRIDGE], columns, seed=seed) if columns else pd.DataFrame()
    return Tested(target, prediction, scores, evaluations, minus_probe, cards, groups)


def _metrics(result: Adapted, benchmark: Benchmark, settings: MethodSettings, cache: FeatureCache) -> dict[str, Any]:
    films = {split: len(benchmark.split(split)) for split in ("train", "val")}
    first, *further = ({
        "target": tested.target.test.name, "in_domain": tested.target.in_domain,
        "shared_labels": [asdict(s) for s in tested.target.shared], "test": json_safe(tested.evaluations),
        "medbridge_minus_linear_probe_all_views": json_safe(tested.difference), "scorecards": json_safe(tested.scorecards),
        "subgroups": json_safe(tested.subgroups), "router_mean_weights": tested.prediction.weights.mean(axis=0).tolist(),
    } for tested in result.tested)
    return {
        "benchmark": benchmark.name, "synthetic": benchmark.synthetic,
        "films": films | {"test": len(result.tested[0].target.test)},
        "experts": [e.name for e in settings.experts], "precision": [e.precision for e in settings.experts],
        "trainable_parameters": sum(p.numel() for p in result.model.trainable().values()),
        "config": asdict(settings.adapter), "sampler": asdict(settings.sampler), "train": asdict(settings.config),
        "features": cache.features,
        **first, "further_targets": further, "history": asdict(result.history), "seconds": result.seconds,
        "machine": {"cores": os.cpu_count(), "cuda": torch.cuda.is_available(), "python": platform.python_version(),
                    "torch": torch.__version__},
    }


def comparison_table(result: Adapted) -> str:
    """Test AUC of every method on every target, mean and by label, with intervals; the paired difference below."""
    def table(tested: Tested) -> str:
        evaluations = tested.evaluations.values()
        means = [with_interval(e.macro["auc"], e.macro["lo"], e.macro["hi"]) for e in evaluations]
        rows = [[label, *(with_interval(*e.per_label.loc[c, ["auc", "auc_lo", "auc_hi"]]) for e in evaluations)]
                for c, label in enumerate(tested.target.test.labels)]
        return text_table([["", *tested.evaluations], ["mean", *means], *rows])

    return fill_template(__file__, "comparison.txt.jinja", result=result, table=table, with_interval=with_interval,
                         probe=PROBE).removesuffix("\n")
