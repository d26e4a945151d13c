"""``medbridge experiment FILE.yaml``: a grid of training runs, its tables and its figures."""

import argparse
import sys
from pathlib import Path

from medbridge.cli.options import NOTICE
from medbridge.features.cache import FeatureCache
from medbridge.studies.experiment import run_experiment, summary
from medbridge.studies.experiment_file import read_experiment
from medbridge.support.processes import is_main


def run(args: argparse.Namespace) -> None:
    experiment = read_experiment(args.file)
    out = Path(args.out or f"runs/{Path(args.file).stem}")
    results = run_experiment(experiment, out, FeatureCache(args.cache, args.workers, features=experiment.features))
    if not is_main():
        return
    from medbridge.viz.studies import write_figures  # matplotlib wants a writable folder: only where something is drawn

    figures = write_figures(results.averages, out / "figures")
    for note in results.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"\n{summary(results.averages, results.differences)}\n")
    print(f"{results.trained} of {results.cells} runs were made now, the others were there. In {out}/ : results, averages and "
          f"differences (Parquet and CSV), {len(figures)} figures. {NOTICE}")
