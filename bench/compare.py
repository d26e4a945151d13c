"""MedBridge against logistic regressions on the same frozen backbone, on films of your own.

    MEDBRIDGE_WEIGHTS=FOLDER python bench/compare.py --root FILMS --expert dinov2-vits14+minilm

FILMS is in the `folder` layout (labels.csv and images/). All methods see the same splits and choose their settings on the
validation split; the test split is measured once. One regression reads [CLS; mean patch] of the whole film, the other that of all
views that MedBridge sees (whole film, mean and maximum), which is what MedBridge is compared with.
Prints test AUC for each label and the paired bootstrap difference over the training seeds; writes a JSON file.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from medbridge import create_expert, load_benchmark
from medbridge.cli.options import add_settings, settings_of
from medbridge.data.tasks import make_targets
from medbridge.features.cache import FeatureCache
from medbridge.metrics.evaluate import auc, json_safe
from medbridge.studies.cells import MEDBRIDGE, PROBES, Cell, MethodSettings, ResultStore
from medbridge.studies.engine import run_cells
from medbridge.studies.tables import difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--expert", action="append", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="runs/compare")
    add_settings(parser)
    args = parser.parse_args()
    benchmark = load_benchmark("folder", args.root)
    settings = MethodSettings([create_expert(name) for name in args.expert], *settings_of(args))
    targets = make_targets(benchmark, [benchmark])
    probes = [Cell("linear probe", benchmark, targets, replace(settings, views=views)) for views in PROBES.values()]
    ours = [Cell(MEDBRIDGE, benchmark, targets, settings, seed) for seed in range(args.seeds)]
    store = ResultStore(args.out)
    run_cells([*probes, *ours], store, FeatureCache(), "compare")
    runs, (same, whole) = ([store.scores(cell, targets[0]) for cell in cells] for cells in (ours, probes))
    val = [json.loads((store.folder(cell) / "adapter.json").read_text())["card"]["val_auc"] for cell in ours]
    test = targets[0].test
    y, mask = test.targets()
    d = difference(targets[0], runs, [same])
    ours, same, whole = np.mean([auc(y, p, mask) for p in runs], axis=0), auc(y, same, mask), auc(y, whole, mask)
    print(f"{benchmark.name}: {len(test)} test films; MedBridge: mean of {len(runs)} training seeds, "
          f"validation AUC {', '.join(f'{v:.3f}' for v in val)}")
    print(f"{'label':<24}{'whole film':>12}{'all views':>12}{'MedBridge':>12}   minus all views [95 % paired bootstrap]")
    rows = [("mean", whole.mean(), same.mean(), ours.mean(), d.diff, d.lo, d.hi)]
    rows += [(label, *aucs, r.diff, r.lo, r.hi)
             for label, r, *aucs in zip(test.labels, d.per_label.itertuples(), whole, same, ours, strict=True)]
    for label, *aucs, diff, low, high in rows:
        print(f"{label:<24}{''.join(f'{value:>12.3f}' for value in aucs)}   {diff:+.3f} [{low:+.3f}, {high:+.3f}]")
    (Path(args.out) / "compare.json").write_text(json.dumps({
        "experts": args.expert, "validation_auc": val, "linear_probe_whole_film_auc": whole.tolist(),
        "linear_probe_all_views_auc": same.tolist(), "medbridge_auc": ours.tolist(),
        "difference": json_safe(d)}, indent=2))


if __name__ == "__main__":
    main()
