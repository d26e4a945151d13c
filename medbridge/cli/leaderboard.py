"""``medbridge leaderboard``: every method on one benchmark, as Markdown, CSV and a figure."""

import argparse
from functools import partial
from pathlib import Path

from medbridge.baselines import method_class
from medbridge.cli.options import benchmark_ref, build_experts, feature_cache, settings_of, source_ref
from medbridge.studies.cells import MethodSettings
from medbridge.studies.leaderboard import run_leaderboard
from medbridge.support.files import write_atomic
from medbridge.support.processes import is_main


def run(args: argparse.Namespace) -> None:
    settings = settings_of(args)
    names = [method_class(name).name for name in args.method or ()]  # an unknown one stops the command before films are read
    source = source_ref(args)
    tests = [benchmark_ref(text, args).load() for text in args.test or ()]
    out = Path(args.out or f"runs/leaderboard-{source.name.lower()}{f'-{args.folds}-folds' if args.folds else ''}")
    base = MethodSettings(build_experts(args.expert, args.weights, precision=args.precision), *settings, args.views, args.tries)
    board = run_leaderboard(source.load(), base, out, feature_cache(args), names, range(args.seeds), tests,
                            fraction=args.label_fraction, folds=args.folds)
    if is_main():
        from medbridge.viz.studies import leaderboard_plot  # as in `experiment`: only where something is drawn

        write_atomic(out / "leaderboard.png", partial(leaderboard_plot(board.table, board.caption).savefig, dpi=150))
        print(f"{board.markdown()}\nleaderboard.md, .csv, .png and leaderboard_labels.csv are in {out}/")
