"""``medbridge ablate``: one thing at a time around a default, as Markdown, CSV and figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from medbridge.cli.experts import add_precision, add_weights, build_experts
from medbridge.cli.options import add_option, add_settings, parse_options, settings_of
from medbridge.data import list_benchmarks
from medbridge.data.tasks import BenchmarkRef, thin_training
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig
from medbridge.studies.ablate import FACTORS, Base, run_ablation
from medbridge.support.processes import is_main
from medbridge.train import TrainConfig

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the parser of ``ablate``."""
    one = commands.add_parser(
        "ablate", help="does each part earn its place? One factor at a time, with paired intervals; resumable")
    one.add_argument("--benchmark", required=True, metavar="NAME", help=f"one of {', '.join(list_benchmarks())}")
    one.add_argument("--root", help="folder that holds the benchmark")
    add_option(one)
    one.add_argument("--expert", action="append", required=True, metavar="NAME", help="repeat for a mixture")
    add_weights(one)
    add_precision(one)
    one.add_argument("--only", action="append", metavar="FACTOR", choices=list(FACTORS),
                     help=f"repeat; default all: {', '.join(FACTORS)}")
    one.add_argument("--seeds", type=int, default=3, help="training seeds 0, 1, ... (default 3)")
    one.add_argument("--label-fraction", type=float, default=1.0, help="share of the training patients that is used, in (0, 1]")
    one.add_argument("--out", help="folder of the run (default: runs/ablate-BENCHMARK)")
    one.add_argument("--cache", help="folder of the frozen features (default: MEDBRIDGE_CACHE or ~/.cache/medbridge)")
    one.add_argument("--workers", type=int, help="processes that decode films")
    add_settings(one, AdapterConfig)
    add_settings(one, TrainConfig, skip=["seed"])
    add_settings(one, FocalSampler, skip=["seed"])
    one.set_defaults(run=_run, seed=0)


def _run(args: argparse.Namespace) -> None:
    if args.seeds < 1:
        raise ValueError(f"--seeds {args.seeds} must be at least 1")
    text = args.benchmark if args.root is None else f"{args.benchmark}={args.root}"
    loaded = BenchmarkRef.parse(text, parse_options(args.option, args.benchmark)).load()
    benchmark = thin_training(loaded, args.label_fraction, 0)
    settings = (settings_of(cls, args) for cls in (AdapterConfig, FocalSampler, TrainConfig))
    base = Base(build_experts(args.expert, args.weights, precision=args.precision), *settings)
    out = Path(args.out or f"runs/ablate-{args.benchmark}")
    result = run_ablation(benchmark, base, out, args.only, range(args.seeds), args.cache, args.workers)
    if not is_main():
        return
    print(f"\n{result.markdown()}")
    print(f"ablation.md, .csv, .png and cost.png are in {out}/ . For research and education, not for clinical use.")
