"""One training run on a folder of squares, as a process of its own: killed or launched twice by tests/support/test_processes.py.

    python tests/training_run.py IMAGES CACHE RUN OUT DROPOUT [FEATURES]
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from samples import small_expert

from medbridge.data import Benchmark
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge
from medbridge.predict import predict
from medbridge.support.processes import is_main
from medbridge.train import TrainConfig, fit


def main(images, cache, run, out, dropout, features="cache"):
    torch.set_num_threads(1)
    names = sorted(p.name for p in Path(images).glob("*.png"))
    rng = np.random.default_rng(3)
    table = pd.DataFrame({
        "image": names, "patient_id": names, "split": ["train"] * 31 + ["val"] * 17 + ["test"] * 12,
        "bright": rng.integers(0, 2, 60).astype(float), "wide": rng.integers(0, 2, 60).astype(float)})
    table.loc[[2, 11, 40], "wide"] = np.nan
    films = Benchmark("squares (synthetic)", images, ("bright", "wide"), table, synthetic=True)
    experts = [small_expert("small-vit", 3),
               small_expert("small-resnet", 2, vision={"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16})]
    model = MedBridge(experts, films.labels, sampler=FocalSampler(crop=0.6, overlap=0.0, extra=2), width=32, queries=4,
                      dropout=float(dropout))
    print("go", flush=True)
    # 31 films by 8: the last step holds 7, which two processes cannot share evenly; by 3 parts: some hold one film
    config = TrainConfig(epochs=6, batch_size=8, accumulate=3, patience=9)
    cache = FeatureCache(cache, progress=False, features=features, fresh=False)
    parts = cache.of(model, films.split("train"), training=True), cache.of(model, films.split("val"))
    history = fit(model, *parts, config, run, progress=False, save_steps=1)
    scored = predict(model, cache.of(model, films.split("test")), progress=False)
    summaries = parts[0].pooled("summary", 0, "all")
    if is_main():
        Path(out).write_text(json.dumps({
            "rows": [{k: v for k, v in row.items() if k != "seconds"} for row in asdict(history)["rows"]],
            "test": scored.probabilities.tolist(), "summaries": summaries.mean(axis=1).tolist(),
            "weights": {k: p.double().sum().item() for k, p in model.trainable().items()}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
