"""``medbridge leaderboard``: every method on one benchmark, as Markdown, CSV and a figure."""

import argparse
from functools import partial
from pathlib import Path

from medbridge.baselines import TRIES, list_methods, method_class
from medbridge.cli.options import add_options, add_settings, benchmark_ref, build_experts, seeds_of, settings_of, source_ref
from medbridge.data.tasks import thin_training
from medbridge.features.cache import FeatureCache
from medbridge.studies.cells import MethodSettings
from medbridge.studies.leaderboard import run_leaderboard
from medbridge.support.files import write_atomic
from medbridge.support.processes import is_main


def register(parser: argparse.ArgumentParser) -> None:
    add_options(parser, "train benchmark root test option cache workers expert precision out seeds label-fraction",
                out={"help": "folder of the run (default: runs/leaderboard-BENCHMARK)"})
    parser.add_argument("--method", action="append", metavar="NAME", help=f"repeat; default all: {', '.join(list_methods())}")
    parser.add_argument("--tries", type=int, default=TRIES, help=f"settings that each method may try (default {TRIES})")
    parser.add_argument("--views", default="all", choices=["all", "whole"], help="what the baselines see (default all)")
    add_settings(parser, ["epochs", "batch_size", "patience"])


def run(args: argparse.Namespace) -> None:
    seeds, settings = seeds_of(args), settings_of(args)
    names = [method_class(name).name for name in args.method or ()]  # an unknown one stops the command before films are read
    source = source_ref(args)
    benchmark = thin_training(source.load(), args.label_fraction)
    tests = [benchmark_ref(text, args).load() for text in args.test or ()]
    out = Path(args.out or f"runs/leaderboard-{source.name.lower()}")
    methods = MethodSettings(build_experts(args.expert, precision=args.precision), *settings, args.views, args.tries)
    board = run_leaderboard(benchmark, methods, out, FeatureCache(args.cache, args.workers), names, seeds, tests)
    if is_main():
        from medbridge.viz.plots import leaderboard_plot  # as in `experiment`: only where something is drawn

        write_atomic(out / "leaderboard.png", partial(leaderboard_plot(board.table, board.caption).savefig, dpi=150))
        print(f"{board.markdown()}\nleaderboard.md, .csv, .png and leaderboard_labels.csv are in {out}/")
