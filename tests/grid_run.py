"""A leaderboard, an ablation and an experiment in small, run by one process or by two: tests/support/test_processes.py.

    python tests/grid_run.py FOLDER_OF_FILMS CACHE OUT
"""

import sys
from pathlib import Path

import torch
from samples import small_expert

from medbridge.data import load_benchmark
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig
from medbridge.studies.ablation import run_ablation
from medbridge.studies.cells import MethodSettings
from medbridge.studies.experiment import run_experiment
from medbridge.studies.experiment_file import parse_experiment
from medbridge.studies.leaderboard import run_leaderboard
from medbridge.train import TrainConfig

ADAPTER = {"queries": 2, "query_layers": 1, "width": 16, "heads": 2}
SAMPLER = {"crop": 0.9, "overlap": 0.0, "extra": 1}


def main(films, cache, out):
    torch.set_num_threads(1)
    benchmark, out = load_benchmark("folder", films), Path(out)
    experts = [small_expert("small-resnet", 2, vision={"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16})]
    shared = FeatureCache(cache, progress=False)
    adapter, sampler, config = AdapterConfig(**ADAPTER), FocalSampler(**SAMPLER), TrainConfig(epochs=2)
    methods = ["maple", "zero-shot", "linear-probe", "coop", "medbridge"]  # MaPLe cannot use a ResNet, whichever process tries
    settings = MethodSettings(experts, adapter, sampler, config, views="all", tries=1)
    board = run_leaderboard(benchmark, settings, out / "board", shared, methods, (0, 1), n_boot=50)
    assert list(board.left_out) == ["MaPLe"]
    run_leaderboard(benchmark, settings, out / "folds", shared, ["zero-shot", "medbridge"], (0,), n_boot=50, folds=3)
    base = MethodSettings(experts, adapter, sampler, config)
    run_ablation(benchmark, base, out / "ablation", shared, ["views", "probe"], (0, 1), n_boot=50)
    experiment = parse_experiment({
        "name": "small", "experts": ["small-resnet"], "benchmarks": {"own": {"benchmark": "folder", "root": str(films)}},
        "label_fractions": [0.5, 1.0], "seeds": [0, 1], "methods": ["zero-shot", "linear probe", "MedBridge"], "n_boot": 50,
        "adapter": ADAPTER, "sampler": SAMPLER, "train": {"epochs": 2},
        "tasks": [{"name": "all", "kind": "multi-label", "train": ["own"]},
                  {"name": "one", "kind": "binary", "train": ["own"], "label": "bright"}]})
    run_experiment(experiment, out / "experiment", shared, experts)


if __name__ == "__main__":
    main(*sys.argv[1:])
