"""``medbridge ablate``: one thing at a time around a default, as Markdown, CSV and figures."""

import argparse
from functools import partial
from pathlib import Path

from medbridge.cli.options import NOTICE, add_options, add_settings, build_experts, named_benchmark, seeds_of, settings_of
from medbridge.data.tasks import thin_training
from medbridge.features.cache import FeatureCache
from medbridge.studies.ablation import FACTORS, run_ablation
from medbridge.studies.cells import MethodSettings
from medbridge.support.files import write_atomic
from medbridge.support.processes import is_main


def register(parser: argparse.ArgumentParser) -> None:
    add_options(parser, "benchmark root option expert weights precision seeds label-fraction out cache workers",
                benchmark={"required": True}, out={"help": "folder of the run (default: runs/ablate-BENCHMARK)"})
    parser.add_argument("--only", action="append", metavar="FACTOR", choices=list(FACTORS),
                        help=f"repeat; default all: {', '.join(FACTORS)}")
    add_settings(parser)


def run(args: argparse.Namespace) -> None:
    seeds, settings = seeds_of(args), settings_of(args)
    benchmark = thin_training(named_benchmark(args).load(), args.label_fraction, 0)
    base = MethodSettings(build_experts(args.expert, args.weights, precision=args.precision), *settings)
    out = Path(args.out or f"runs/ablate-{args.benchmark}")
    result = run_ablation(benchmark, base, out, FeatureCache(args.cache, args.workers), args.only, seeds)
    if is_main():
        from medbridge.viz.ablation import cost_plot, forest_plot  # as in `experiment`: only where something is drawn

        for name, draw in (("ablation.png", forest_plot), ("cost.png", cost_plot)):
            write_atomic(out / name, partial(draw(result.table, result.caption).savefig, dpi=150))
        print(f"\n{result.markdown()}\nablation.md, .csv, .png and cost.png are in {out}/ . {NOTICE}")
