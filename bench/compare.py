"""MedBridge against a logistic regression on the same frozen backbone, on films of your own.

    MEDBRIDGE_WEIGHTS=FOLDER python bench/compare.py --root FILMS --expert dinov2-vits14+minilm

FILMS is in the `folder` layout (labels.csv and images/). Both methods see the same splits and choose their settings on the
validation split; the test split is measured once. The logistic regression reads [CLS; mean patch] of the whole film.
Prints test AUC for each label and the paired bootstrap difference over the training seeds; writes a JSON file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from medbridge import AdapterConfig, FocalSampler, MedBridge, TrainConfig, create_expert, load_benchmark
from medbridge.baselines import LinearProbe
from medbridge.cli.options import add_settings, settings_of
from medbridge.features.cache import compute_features
from medbridge.metrics.evaluate import auc, paired_difference
from medbridge.predict import predict
from medbridge.train import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--expert", action="append", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="runs/compare")
    for cls, skip in ((AdapterConfig, []), (TrainConfig, ["seed"]), (FocalSampler, ["seed"])):
        add_settings(parser, cls, skip)
    args = parser.parse_args()
    args.seed = 0
    benchmark = load_benchmark("folder", args.root)
    experts = [create_expert(name) for name in args.expert]
    config, sampler = settings_of(AdapterConfig, args), settings_of(FocalSampler, args)
    depths = MedBridge(experts, benchmark.labels, config, sampler).depths
    films = {s: compute_features(benchmark.split(s), experts, depths, sampler, s == "train") for s in ("train", "val", "test")}
    probe = LinearProbe().fit(films["train"], films["val"]).predict_proba(films["test"])
    runs, val = [], []
    for seed in range(args.seeds):
        args.seed = seed
        model = MedBridge(experts, benchmark.labels, config, sampler, seed=seed)
        history = fit(model, benchmark, settings_of(TrainConfig, args), Path(args.out) / f"seed{seed}")
        val.append(history.best_auc)
        runs.append(predict(model, films["test"]).probabilities)
    test = benchmark.split("test")
    y, mask = test.targets()
    difference = paired_difference(y, runs, [probe] * len(runs), mask, test.table["patient_id"], labels=test.labels)
    ours = np.mean([auc(y, p, mask) for p in runs], axis=0)
    print(f"{benchmark.name}: {len(test)} test films; MedBridge: mean of {len(runs)} training seeds, "
          f"validation AUC {', '.join(f'{v:.3f}' for v in val)}")
    print(f"{'label':<24}{'regression':>11}{'MedBridge':>11}   difference [95 % paired bootstrap]")
    theirs = auc(y, probe, mask)
    rows = [("mean", theirs.mean(), ours.mean(), difference.diff, difference.lo, difference.hi)]
    rows += [(r.label, a, b, r.diff, r.lo, r.hi)
             for r, a, b in zip(difference.per_label.itertuples(), theirs, ours, strict=True)]
    for label, a, b, diff, low, high in rows:
        print(f"{label:<24}{a:>11.3f}{b:>11.3f}   {diff:+.3f} [{low:+.3f}, {high:+.3f}]")
    Path(args.out).mkdir(parents=True, exist_ok=True)
    (Path(args.out) / "compare.json").write_text(json.dumps({
        "experts": args.expert, "validation_auc": val, "linear_probe_auc": theirs.tolist(), "medbridge_auc": ours.tolist(),
        "difference": difference.to_dict()}, indent=2))


if __name__ == "__main__":
    main()
