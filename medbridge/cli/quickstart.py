"""``medbridge quickstart``: synthetic films, the shipped tiny experts, an AUC table and a report."""

import argparse
from pathlib import Path

from medbridge.cli.adapt import adapt_and_report
from medbridge.cli.options import build_experts
from medbridge.data import load_benchmark
from medbridge.studies.cells import MethodSettings
from medbridge.train import TrainConfig


def run(args: argparse.Namespace) -> None:
    print("MedBridge quickstart: SYNTHETIC films (PhantomCXR) and the shipped tiny experts; nothing is downloaded.", flush=True)
    benchmark = load_benchmark("phantom", n_films=args.films, seed=args.seed)
    settings = MethodSettings(build_experts(["tiny-resnet", "tiny-resnet-scenes"]), config=TrainConfig(seed=args.seed))
    adapt_and_report(benchmark, settings, Path(args.out))
    print("next: `make lab` opens the course in JupyterLab; start with notebooks/00_start_here.ipynb")
