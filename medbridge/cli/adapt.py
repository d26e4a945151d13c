"""``medbridge adapt``: train MedBridge on a benchmark, and compare it with its baselines there or on others."""

import argparse
import sys
from pathlib import Path
from typing import Any

from medbridge.cli.options import NOTICE, benchmark_ref, build_experts, feature_cache, settings_of, source_ref
from medbridge.data import Benchmark
from medbridge.data.tasks import label_budget
from medbridge.studies.adapt import adapt, comparison_table
from medbridge.studies.cells import MethodSettings
from medbridge.support.processes import is_main


def run(args: argparse.Namespace) -> None:
    settings, source = settings_of(args), source_ref(args)
    tests = [benchmark_ref(text, args) for text in args.test or ()]
    loaded = source.load()
    others = [loaded if test == source else test.load() for test in tests]
    benchmark = label_budget(loaded, args.label_fraction, args.seed)
    methods = MethodSettings(build_experts(args.expert, args.weights, precision=args.precision), *settings)
    budget = f"-{args.label_fraction:g}" if args.label_fraction != 1 else ""
    out = args.out or f"runs/{benchmark.name.split()[0].lower()}{budget}"
    adapt_and_report(benchmark, methods, Path(out), feature_cache(args), others, args.tensorboard)


def adapt_and_report(benchmark: Benchmark, settings: MethodSettings, out: Path, *options: Any) -> None:
    """Adapt, write ``report.html``, print the comparison; ``options`` as :func:`medbridge.studies.adapt.adapt` takes them."""
    from medbridge.viz.report import write_report  # matplotlib wants a writable folder: not where nothing is drawn

    result = adapt(benchmark, settings, out, *options)
    if is_main():
        print("drawing report.html ...", file=sys.stderr)
        write_report(result, out / "report.html")
        print(f"\n{comparison_table(result)}\n")
        print(f"adapter, metrics.json and report.html are in {out}/ . {NOTICE}")
