"""``medbridge ablate``: one thing at a time around a default, as Markdown, CSV and figures."""

import argparse
from functools import partial
from pathlib import Path

from medbridge.cli.options import NOTICE, build_experts, feature_cache, settings_of, source_ref
from medbridge.data.tasks import label_budget
from medbridge.studies.ablation import run_ablation
from medbridge.studies.cells import MethodSettings
from medbridge.support.files import write_atomic
from medbridge.support.processes import is_main


def run(args: argparse.Namespace) -> None:
    settings = settings_of(args)
    benchmark = label_budget(source_ref(args).load(), args.label_fraction, 0)
    base = MethodSettings(build_experts(args.expert, args.weights, precision=args.precision), *settings)
    out = Path(args.out or f"runs/ablate-{args.benchmark}")
    result = run_ablation(benchmark, base, out, feature_cache(args), args.only, range(args.seeds))
    if is_main():
        from medbridge.viz.studies import cost_plot, forest_plot  # as in `experiment`: only where something is drawn

        for name, draw in (("ablation.png", forest_plot), ("cost.png", cost_plot)):
            write_atomic(out / name, partial(draw(result.table, result.caption).savefig, dpi=150))
        print(f"\n{result.markdown()}\nablation.md, .csv, .png and cost.png are in {out}/ . {NOTICE}")
