"""``medbridge leaderboard``: MedBridge and all baselines on one benchmark, as Markdown, CSV and a figure."""

from __future__ import annotations

import argparse
from pathlib import Path

from medbridge.baselines import TRIES, list_baselines
from medbridge.cli.experts import add_precision, build_experts
from medbridge.cli.options import add_benchmark, add_settings, benchmark_ref, settings_of, source_ref
from medbridge.data.tasks import thin_training
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig
from medbridge.studies.leaderboard import OURS, run_leaderboard
from medbridge.support.processes import is_main
from medbridge.train import TrainConfig

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the parser of ``leaderboard``."""
    one = commands.add_parser("leaderboard", help="MedBridge and all baselines on one benchmark, with intervals; resumable")
    one.add_argument("--train", metavar="NAME[=ROOT]", help="train on it; without --test, its own test split is scored")
    add_benchmark(one)
    one.add_argument("--expert", action="append", required=True, metavar="NAME", help="repeat for several")
    add_precision(one)
    one.add_argument("--method", action="append", metavar="NAME", choices=[*list_baselines(), OURS],
                     help=f"repeat; default all: {', '.join([*list_baselines(), OURS])}")
    one.add_argument("--out", help="folder of the run (default: runs/leaderboard-BENCHMARK)")
    one.add_argument("--seeds", type=int, default=3, help="training seeds 0, 1, ... (default 3)")
    one.add_argument("--tries", type=int, default=TRIES, help=f"settings that each method may try (default {TRIES})")
    one.add_argument("--views", default="all", choices=["all", "whole"], help="what the baselines see (default all)")
    one.add_argument("--label-fraction", type=float, default=1.0, help="share of the training patients that is used, in (0, 1]")
    for name in ("epochs", "batch_size", "patience"):
        default = getattr(TrainConfig(), name)
        one.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"of every method; default {default}")
    add_settings(one, AdapterConfig)
    add_settings(one, FocalSampler, skip=["seed"])
    one.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    if args.seeds < 1:
        raise ValueError(f"--seeds {args.seeds} must be at least 1")
    source = source_ref(args)
    benchmark = thin_training(source.load(), args.label_fraction)
    tests = [benchmark_ref(text, args).load() for text in args.test or ()]
    out = Path(args.out or f"runs/leaderboard-{source.name.lower()}")
    config = TrainConfig(epochs=args.epochs, batch_size=args.batch_size, patience=args.patience)
    board = run_leaderboard(
        benchmark, build_experts(args.expert, precision=args.precision), out, args.method, range(args.seeds), config,
        settings_of(AdapterConfig, args), settings_of(FocalSampler, args), args.views, args.tries, args.cache, args.workers,
        tests=tests)
    if not is_main():
        return
    print(board.markdown())
    print(f"leaderboard.md, .csv, .png and leaderboard_labels.csv are in {out}/")
