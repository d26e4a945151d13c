"""(d) of ``bench/speed.py``: how soon MedBridge and others come to the same validation AUC."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

from rig import FIVE, Row, clip

from medbridge import MedBridge, create_expert, load_benchmark
from medbridge.baselines import create_baseline, loop
from medbridge.cache import compute_features
from medbridge.experts import Expert
from medbridge.focal import FocalSampler
from medbridge.train import TrainConfig, _Loop, fit


def adaptation(args: argparse.Namespace, place: Path) -> Row:
    """(d) time to a validation AUC that all reach: MedBridge, CoOp and LoRA on one expert, features and embeddings included."""
    return races(args, "d", create_expert("tiny-vit"), {"coop": "CoOp", "lora": "LoRA"}, FocalSampler(), place)


def adaptation_of_clip(args: argparse.Namespace, place: Path) -> Row:
    """(d-clip) the same against CoOp with towers of CLIP's size, half the films and a third of the epochs."""
    few = argparse.Namespace(**{**vars(args), "phantom": args.phantom // 2, "epochs": args.epochs // 3})
    return races(few, "d-clip", clip("ViT-B-32"), {"coop": "CoOp"}, FIVE, place)


def races(args: argparse.Namespace, key: str, expert: Expert, rivals: dict[str, str], sampler: FocalSampler, place: Path) -> Row:
    """A row of :func:`race` over the training seeds."""
    runs = [race(args, seed, expert, list(rivals), sampler, place / str(seed)) for seed in range(args.seeds)]
    told, ratios = [], {}
    for name, called in rivals.items():
        each = [spent["medbridge"] / spent[name] for _, spent, _ in runs]
        ratios[name] = median(each)
        told.append(f"against {called} {ratios[name]:.2f} ({', '.join(f'{r:.2f}' for r in each)})")
    told += [f"seed {seed}, to AUC {goal:.3f}: " + ", ".join(f"{n} {spent[n]:.1f} s (best {best[n]:.3f})" for n in spent)
             for seed, (goal, spent, best) in enumerate(runs)]
    worst = max(ratios.values())
    return Row(key, f"time to the same validation AUC on {expert.name}, MedBridge / {' and / '.join(rivals.values())}", "< 1",
               worst < 1, None, worst, "processor time, median of the seeds; " + "; ".join(told))


def race(
    args: argparse.Namespace, seed: int, expert: Expert, rivals: list[str], sampler: FocalSampler, place: Path
) -> tuple[float, dict[str, float], dict[str, float]]:
    """The AUC that all methods reach with this training seed, processor seconds of each until then, and the best AUC of each."""
    benchmark = load_benchmark("phantom", n_films=args.phantom, seed=0)
    config = TrainConfig(epochs=args.epochs, patience=args.epochs, seed=seed)
    curves: dict[str, list[tuple[float, float]]] = {}
    merit = loop.merit
    for name in rivals:
        begin, curve = time.process_time(), curves.setdefault(name, [])

        def log(y, p, mask, curve=curve, begin=begin):
            found = merit(y, p, mask)
            curve.append((time.process_time() - begin, found))
            return found

        loop.merit = log
        parts = [compute_features(benchmark.split(s), [expert], [[]], sampler, s == "train", place / name, None, False)
                 for s in ("train", "val")]
        create_baseline(name, [expert], benchmark.labels, views="all", config=config, tries=1, progress=False).fit(*parts)
    loop.merit = merit
    begin, curve = time.process_time(), curves.setdefault("medbridge", [])
    plain = _Loop._validate

    def validate(self: _Loop) -> tuple[float, float]:
        found = plain(self)
        curve.append((time.process_time() - begin, found[0]))
        return found

    _Loop._validate = validate
    model = MedBridge([expert], benchmark.labels, sampler=sampler, seed=seed)
    fit(model, benchmark, config, None, place / "medbridge", None, False)
    _Loop._validate = plain
    best = {name: max(a for _, a in curve) for name, curve in curves.items()}
    goal = min(best.values())
    return goal, {name: next(t for t, a in curve if a >= goal) for name, curve in curves.items()}, best
